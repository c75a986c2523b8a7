"""What a `Dataset` loads, checked: errors name the image and say what came."""

from typing import Any

import numpy as np

from kvision.compat.matterport.dataset import Dataset

__all__ = ["check_dataset", "checked_image", "checked_masks"]

Array = np.ndarray


def check_dataset(dataset: Any, num_classes: int, name: str) -> None:
    """Refuse a data set that a model cannot be trained on.

    Args:
        dataset: the data set.
        num_classes: NUM_CLASSES of the configuration.
        name: of the argument, for the message.

    Raises:
        ValueError: it is not prepared, empty, has other classes or several sources.
    """
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"{name} must be an object of a class derived from "
            "kvision.compat.matterport.dataset.Dataset. Received: a "
            f"{type(dataset).__name__}"
        )
    if not dataset.image_info or len(dataset.image_ids) != len(dataset.image_info):
        raise ValueError(
            f"{name} has {len(dataset.image_info)} images, {len(dataset.image_ids)} of "
            "them prepared. Call add_image for every image, then prepare()."
        )
    if dataset.num_classes != num_classes:
        raise ValueError(
            f"{name} has {dataset.num_classes} classes ({dataset.class_names}), "
            f"NUM_CLASSES is {num_classes}. The background counts as one."
        )
    sources = {info["source"] for info in dataset.class_info[1:]}
    sources |= {info["source"] for info in dataset.image_info}
    if len(sources) > 1:
        raise ValueError(
            f"{name} has several sources: {sorted(sources)}. The loss of an image "
            "counts all classes here, also those that its source does not label. Train "
            "on one source, or give all classes and images the same."
        )


def checked_image(dataset: Dataset, image_id: int) -> Array:
    """Load an image.

    Args:
        dataset: the data set.
        image_id: number of the image.

    Returns:
        (H, W, 3) uint8 array.

    Raises:
        ValueError: `load_image` returned something else.
    """
    image = np.asarray(dataset.load_image(image_id))
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"load_image of {_named(dataset, image_id)} must return a (height, width, "
            f"3) array. Received: shape {image.shape}"
        )
    if image.dtype == np.uint8:
        return image
    is_number = image.dtype.kind in "uif"
    low, high = (image.min(), image.max()) if is_number else (0, 0)
    # Also where a value is not a number.
    if not (is_number and low >= 0 and high <= 255) or _is_unit(image.dtype, high):
        raise ValueError(
            f"load_image of {_named(dataset, image_id)} must return values from 0 to "
            f"255. Received: {image.dtype}"
            + (f" from {low} to {high}" if is_number else "")
        )
    return np.rint(image).astype(np.uint8)


def checked_masks(
    dataset: Dataset, image_id: int, size: tuple[int, int]
) -> tuple[Array, Array]:
    """Load the objects of an image.

    Args:
        dataset: the data set.
        image_id: number of the image.
        size: (height, width) of the image in pixels.

    Returns:
        (H, W, N) bool array and (N,) int32 array of classes, negative for crowds.

    Raises:
        ValueError: `load_mask` returned something else.
    """
    loaded = dataset.load_mask(image_id)
    where = f"load_mask of {_named(dataset, image_id)}"
    if not isinstance(loaded, tuple | list) or len(loaded) != 2:
        raise ValueError(
            f"{where} must return (masks, class_ids). Received: a "
            f"{type(loaded).__name__}"
        )
    masks, class_ids = np.asarray(loaded[0]), np.asarray(loaded[1])
    _check_class_ids(class_ids, dataset, where)
    if not len(class_ids) and not masks.size:
        return np.zeros((*size, 0), bool), np.zeros(0, np.int32)
    if masks.shape != (*size, len(class_ids)):
        raise ValueError(
            f"{where} must return masks of shape (height, width, objects) = "
            f"{(*size, len(class_ids))}, for the image and its {len(class_ids)} class "
            f"ids. Received: shape {masks.shape}"
        )
    is_mask = masks.dtype.kind in "bui"
    if not is_mask and masks.dtype.kind == "f":
        is_mask = bool(np.isin(masks, (0, 1)).all())
    if not is_mask:
        raise ValueError(
            f"{where} must return bool masks (or 0 and 1). Received: {masks.dtype}"
            + (" with other values" if masks.dtype.kind == "f" else "")
        )
    return masks.astype(bool), class_ids.astype(np.int32)


def _is_unit(dtype: np.dtype, high: float) -> bool:
    """Whether floats look like values of 0 to 1."""
    return dtype.kind == "f" and 0 < high <= 1


def _check_class_ids(class_ids: Array, dataset: Dataset, where: str) -> None:
    # An empty list has no type of its own.
    is_whole = class_ids.dtype.kind in "iu" or not class_ids.size
    if class_ids.ndim != 1 or not is_whole:
        raise ValueError(
            f"{where} must return class ids as a one-dimensional array of whole "
            f"numbers. Received: shape {class_ids.shape}, {class_ids.dtype}"
        )
    largest = dataset.num_classes - 1
    wrong = class_ids[(np.abs(class_ids) > largest) | (class_ids == 0)]
    if wrong.size:
        raise ValueError(
            f"{where} must return class ids from 1 to {largest} (negative for "
            f"crowds; 0 is the background). Received: {np.unique(wrong).tolist()}"
        )


def _named(dataset: Dataset, image_id: int) -> str:
    info = dataset.image_info[image_id]
    return f"image {image_id} ({info['source']}.{info['id']})"
