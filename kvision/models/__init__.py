"""Functions that return a `keras.Model`."""

from kvision.models.conv_vit import conv_vit
from kvision.models.deit import deit, deit3
from kvision.models.detector import Detector
from kvision.models.dynamic_vit import dynamic_vit
from kvision.models.hybrid_vit import hybrid_vit
from kvision.models.inference import for_inference
from kvision.models.mixed_resolution_vit import mixed_resolution_vit
from kvision.models.rcnn import faster_rcnn, mask_rcnn
from kvision.models.resize import with_image_size
from kvision.models.resnet import resnet
from kvision.models.twins import twins_pcpvt, twins_svt
from kvision.models.vit import vit

__all__ = [
    "Detector",
    "conv_vit",
    "deit",
    "deit3",
    "dynamic_vit",
    "faster_rcnn",
    "for_inference",
    "hybrid_vit",
    "mask_rcnn",
    "mixed_resolution_vit",
    "resnet",
    "twins_pcpvt",
    "twins_svt",
    "vit",
    "with_image_size",
]
