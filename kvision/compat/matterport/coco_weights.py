"""matterport's weights for COCO."""

from pathlib import Path
from typing import Any

from kvision.weights.downloading import download
from kvision.weights.replacing import replacing

__all__ = ["download_trained_weights"]

_URL = (
    "https://github.com/matterport/Mask_RCNN/releases/download/v2.0/mask_rcnn_coco.h5"
)
_MAX_BYTES = 1 << 30


def download_trained_weights(coco_model_path: Any, verbose: int = 1) -> None:
    """Download `mask_rcnn_coco.h5`, for a ResNet-101 and COCO's 80 classes.

    Args:
        coco_model_path: where to write it.
        verbose: 1 says so, 0 is silent.

    Raises:
        FetchError: it cannot be downloaded; a `ValueError`.
    """
    path = Path(coco_model_path)
    if verbose:
        print(f"Downloading {_URL} to {path} ...")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        download(_URL, unfinished, _MAX_BYTES)
