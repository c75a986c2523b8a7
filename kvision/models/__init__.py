"""Functions that return a `keras.Model`."""

from kvision.models.detector import Detector
from kvision.models.rcnn import faster_rcnn, mask_rcnn
from kvision.models.resize import with_image_size
from kvision.models.resnet import resnet

__all__ = ["Detector", "faster_rcnn", "mask_rcnn", "resnet", "with_image_size"]
