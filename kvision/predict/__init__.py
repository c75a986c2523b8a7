"""Photos in, what is on them out: `detect` and `classify`, in the user's own pixels."""

from kvision.predict.classifications import Classifications, classify
from kvision.predict.detections import Detections, detect, from_outputs, from_targets
from kvision.predict.explanations import Explanation, explain
from kvision.predict.sources import frames

__all__ = [
    "Classifications",
    "Detections",
    "Explanation",
    "classify",
    "detect",
    "explain",
    "frames",
    "from_outputs",
    "from_targets",
]
