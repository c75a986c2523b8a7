"""Keras layers, one concept a file."""

from kvision.layers.anchors import Anchors
from kvision.layers.detections import DetectionSelection, MaskScores
from kvision.layers.losses import BoxLoss, MaskLoss, RPNLoss
from kvision.layers.normalization import FrozenBatchNormalization, ImageNormalization
from kvision.layers.proposals import ProposalSelection
from kvision.layers.pyramid import FeaturePyramid
from kvision.layers.roi_align import ROIAlign
from kvision.layers.roi_heads import BoxHead, MaskHead
from kvision.layers.rpn import RPN
from kvision.layers.targets import AnchorTargets, MaskTargets, ROITargets

__all__ = [
    "RPN",
    "AnchorTargets",
    "Anchors",
    "BoxHead",
    "BoxLoss",
    "DetectionSelection",
    "FeaturePyramid",
    "FrozenBatchNormalization",
    "ImageNormalization",
    "MaskHead",
    "MaskLoss",
    "MaskScores",
    "MaskTargets",
    "ProposalSelection",
    "ROIAlign",
    "ROITargets",
    "RPNLoss",
]
