"""Pure functions of tensors: no layers, no weights, no state."""

from kvision.ops import (
    anchors,
    boxes,
    losses,
    masks,
    matching,
    nms,
    ordering,
    roi,
    sampling,
    tracing,
)

__all__ = [
    "anchors",
    "boxes",
    "losses",
    "masks",
    "matching",
    "nms",
    "ordering",
    "roi",
    "sampling",
    "tracing",
]
