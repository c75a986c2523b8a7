"""An image and its objects as the model sees them, for looking and for scores."""

from typing import Any

import numpy as np

from kvision.compat.matterport.boxes import extract_bboxes
from kvision.compat.matterport.config import Config
from kvision.compat.matterport.dataset import Dataset
from kvision.compat.matterport.instances import checked_image, checked_masks
from kvision.compat.matterport.molding import mold, mold_masks, molding_of

__all__ = ["load_image_gt", "mold_image", "unmold_image"]

Array = np.ndarray


def load_image_gt(
    dataset: Dataset,
    config: Config,
    image_id: int,
    augment: bool = False,
    augmentation: Any = None,
    use_mini_mask: bool = False,
) -> tuple[Array, Array, Array, Array, Array]:
    """Load an image and its objects, brought to the model's input.

    Args:
        dataset: the data set.
        config: the configuration.
        image_id: number of the image.
        augment: not taken.
        augmentation: not taken; training augments.
        use_mini_mask: not taken; masks are of the size of the image.

    Returns:
        - image: (H, W, 3) uint8 array.
        - image_meta: (12 + classes,) array: id, original shape, shape, window, scale,
          and which classes the image's source has.
        - class_ids: (N,) int32 array.
        - bbox: (N, 4) int32 array, (y1, x1, y2, x2) in pixels of the image.
        - mask: (H, W, N) bool array. Objects that no pixel is left of are left out.

    Raises:
        ValueError: for what is not taken, or what the data set cannot load.
    """
    for name, value in (
        ("augment", augment),
        ("augmentation", augmentation),
        ("use_mini_mask", use_mini_mask),
    ):
        if value:
            raise ValueError(
                f"load_image_gt takes no {name}: it shows images and whole masks as "
                "they are. kvision.predict.detections.from_targets shows batches."
            )
    pixels = checked_image(dataset, image_id)
    height, width = pixels.shape[:2]
    masks, class_ids = checked_masks(dataset, image_id, (height, width))
    molded = mold(pixels, molding_of(config))
    masks = mold_masks(masks, molded)
    used = masks.any(axis=(0, 1))
    masks, class_ids = masks[..., used], class_ids[used]
    source = dataset.image_info[image_id]["source"]
    is_active = np.isin(dataset.class_ids, dataset.source_class_ids.get(source, ()))
    shapes = (*pixels.shape, *molded.image.shape)
    meta = np.array([image_id, *shapes, *molded.window, molded.scale, *is_active])
    return molded.image, meta, class_ids, extract_bboxes(masks), masks


def mold_image(images: Array, config: Config) -> Array:
    """Subtract MEAN_PIXEL, which `detect` does itself.

    Args:
        images: (..., 3) array in 0-255.
        config: the configuration.

    Returns:
        float32 array of the same shape.
    """
    return images.astype(np.float32) - np.asarray(config.MEAN_PIXEL, np.float32)


def unmold_image(normalized_images: Array, config: Config) -> Array:
    """Add MEAN_PIXEL again.

    Args:
        normalized_images: what `mold_image` returned.
        config: the configuration.

    Returns:
        uint8 array of the same shape.
    """
    pixels = np.rint(normalized_images + np.asarray(config.MEAN_PIXEL))
    return pixels.clip(0, 255).astype(np.uint8)
