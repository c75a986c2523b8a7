"""Photos in, what is on them out: `detect` and `classify`, in the user's own pixels."""

from kvision.predict.classifications import Classifications, classify
from kvision.predict.detections import Detections, detect, from_outputs, from_targets
from kvision.predict.sources import frames

__all__ = [
    "Classifications",
    "Detections",
    "classify",
    "detect",
    "frames",
    "from_outputs",
    "from_targets",
]
