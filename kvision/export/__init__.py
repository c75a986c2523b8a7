"""Exported forms of detectors: SavedModel and TFLite, each compared with its model."""

from kvision.export.parity import Parity, ParityError
from kvision.export.saved_model import saved_model
from kvision.export.tflite import tflite

__all__ = ["Parity", "ParityError", "saved_model", "tflite"]
