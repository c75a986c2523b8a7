"""Pure functions of tensors: no layers, no weights, no state."""

from kvision.ops import (
    anchors,
    attention,
    boxes,
    losses,
    masks,
    matching,
    nms,
    ordering,
    positions,
    recomputation,
    resampling,
    roi,
    rollout,
    sampling,
    tracing,
    windows,
)

__all__ = [
    "anchors",
    "attention",
    "boxes",
    "losses",
    "masks",
    "matching",
    "nms",
    "ordering",
    "positions",
    "recomputation",
    "resampling",
    "roi",
    "rollout",
    "sampling",
    "tracing",
    "windows",
]
