"""Weight files of other frameworks, read without those frameworks."""

from kvision.weights.checkpoint import Checkpoint, CheckpointError, Tensor
from kvision.weights.loading import load
from kvision.weights.reading import read_checkpoint
from kvision.weights.report import Report
from kvision.weights.saving import save
from kvision.weights.writing import write_safetensors

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Report",
    "Tensor",
    "load",
    "read_checkpoint",
    "save",
    "write_safetensors",
]
