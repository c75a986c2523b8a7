"""Exported forms of detectors and classifiers, each compared with its model."""

from kvision.export.onnx import onnx
from kvision.export.parity import Parity, ParityError
from kvision.export.saved_model import saved_model
from kvision.export.tflite import tflite

__all__ = ["Parity", "ParityError", "onnx", "saved_model", "tflite"]
