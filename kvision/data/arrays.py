"""Images in memory, or in an .npz file such as MedMNIST's, for classifiers."""

import hashlib
import logging
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from kvision.data.classification_transforms import Augment
from kvision.data.labelled import LabelledOptions, make_labelled_dataset
from kvision.data.splits import Subset, check_split, split_labelled
from kvision.ops.preparation import Interpolation, Preparation

__all__ = ["arrays", "read_npz"]

_LOGGER = logging.getLogger("kvision")


def arrays(
    images: Any,
    labels: Any = None,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    split: str = "train",
    class_names: Sequence[str] | None = None,
    channels: Literal[1, 3] = 3,
    resize: Preparation = "stretch",
    crop_fraction: float = 1.0,
    interpolation: Interpolation = "bicubic",
    validation_split: float | None = None,
    subset: Subset | None = None,
    split_seed: int = 0,
    augment: Augment = False,
    label_smoothing: float = 0.0,
    repeats: int = 1,
    shuffle: bool | None = None,
    seed: int = 0,
    first_epoch: int | None = None,
    first_step: int = 0,
    drop_remainder: bool | None = None,
    num_shards: int = 1,
    shard_index: int = 0,
) -> tf.data.Dataset:
    """Make a dataset of images in arrays.

    Args:
        images: (N, h, w) or (N, h, w, C) array, C 1 or 3, of values in 0..255; or the
            path of an .npz file with `train_images`, `train_labels` and the same for
            val and test (MedMNIST's layout), or with `images` and `labels`.
        labels: (N,) or (N, 1) array of whole numbers 0..K-1; None with a path.
        image_size: (height, width) of the model's input in pixels.
        batch_size: images in a batch.
        split: which part of an .npz file: "train", "val" or "test".
        class_names: names of the K classes; by default "0", "1" and so on, up to the
            largest label of the file or array.
        channels: of the result; grey images are repeated for 3.
        resize: as of the model's preprocessing: "stretch", "crop" or "pad".
        crop_fraction: how much of the short side "crop" keeps.
        interpolation: "bicubic" or "bilinear", antialiased; Pillow's.
        validation_split: part of each class that is set aside for validation.
        subset: which part to return when `validation_split` is given: "training" or
            "validation".
        split_seed: which images are set aside follows from it and from their numbers.
        augment: as of `kvision.data.folders`, like all that follow.
        label_smoothing: part of the probability that all classes share alike.
        repeats: how often an image stands in a row, each time augmented anew.
        shuffle: whether every epoch has another order.
        seed: of order and augmentation.
        first_epoch: makes the dataset endless and begins with this epoch.
        first_step: step of the first epoch with which an endless dataset begins.
        drop_remainder: whether images that do not fill a batch wait.
        num_shards: number of workers that share the data.
        shard_index: which of them this is.

    Returns:
        Dataset of (images, labels) as `kvision.data.folders` makes it, with `channels`
        channels.

    Raises:
        ValueError: shapes, types or values do not fit; the message says which.
    """
    options = LabelledOptions(
        image_size=image_size,
        batch_size=batch_size,
        augment=augment,
        shuffle=shuffle,
        seed=seed,
        first_epoch=first_epoch,
        first_step=first_step,
        num_shards=num_shards,
        shard_index=shard_index,
        drop_remainder=drop_remainder,
        resize=resize,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
        label_smoothing=label_smoothing,
        repeats=repeats,
    )
    check_split(validation_split, subset)
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3. Received: channels={channels!r}")
    largest = None
    if isinstance(images, str | os.PathLike):
        if labels is not None:
            raise ValueError("labels are in the .npz file: give its path only")
        images, labels, largest = read_npz(images, split)
    elif labels is None:
        raise ValueError("labels must be an array of whole numbers. Received: None")
    pixels = _check_images(np.asarray(images), channels)
    numbers = _check_labels(np.asarray(labels), len(pixels))
    names = _names(class_names, largest if largest is not None else numbers.max())
    _check_range(numbers, names)
    where = np.arange(len(pixels))
    if validation_split is not None:
        is_val = split_labelled(
            [str(number) for number in where], numbers, validation_split, split_seed
        )
        _note_shared(pixels, is_val)
        where = np.flatnonzero(is_val if subset == "validation" else ~is_val)
    source = _ArraySource(pixels, numbers, names, where, channels)
    return make_labelled_dataset(source, options)


def read_npz(
    path: str | os.PathLike[str], split: str = "train"
) -> tuple[np.ndarray, np.ndarray, int]:
    """Read images and labels of one set of an .npz file; nothing is unpickled.

    Args:
        path: the file.
        split: "train", "val" or "test".

    Returns:
        Images, labels, and the largest label of all sets of the file.

    Raises:
        ValueError: the file is missing, damaged, or has no such arrays.
    """
    if not Path(path).is_file():
        raise ValueError(f"No such file: {os.fspath(path)}")
    try:
        with np.load(path, allow_pickle=False) as content:
            prefix = _prefix(path, list(content.files), split)
            images, labels = content[f"{prefix}images"], content[f"{prefix}labels"]
            others = [n for n in content.files if n.endswith("labels")]
            largest = max(int(content[n].max(initial=0)) for n in others)
    except (OSError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        raise ValueError(
            f"{os.fspath(path)} is no sound .npz file of arrays ({error})"
        ) from error
    return images, labels, largest


def _prefix(path: Any, names: list[str], split: str) -> str:
    sets = [n.removesuffix("_images") for n in names if n.endswith("_images")]
    if split in sets and f"{split}_labels" in names:
        return f"{split}_"
    if not sets and {"images", "labels"} <= set(names):
        return ""
    raise ValueError(
        f"{os.fspath(path)} has no arrays {split}_images and {split}_labels (nor "
        f"images and labels). It has {names}."
    )


class _ArraySource:
    """Some of the images of an array."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        class_names: list[str],
        where: np.ndarray,
        channels: int,
    ) -> None:
        self.images = images
        self.class_names = class_names
        self.where = where
        self.labels = labels[where]
        self.names = [str(number) for number in where]
        self.channels = channels

    def load_image(self, index: int) -> np.ndarray:
        image = self.images[self.where[index]]
        return np.repeat(image, self.channels // image.shape[-1], axis=-1)

    def fingerprint(self, index: int) -> str:
        raise NotImplementedError("arrays are in memory: there is nothing to cache")


def _check_images(images: np.ndarray, channels: int) -> np.ndarray:
    """Return (N, h, w, C) uint8, without copying where it is that already."""
    is_right = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    if not is_right or not images.size:
        raise ValueError(
            "images must be a (N, h, w), (N, h, w, 1) or (N, h, w, 3) array. Received: "
            f"shape={images.shape}"
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[-1] > channels:
        raise ValueError(
            f"images have colours: channels must be 3. Received: channels={channels}"
        )
    if images.dtype == np.uint8:
        return images
    is_number = np.issubdtype(images.dtype, np.floating) or np.issubdtype(
        images.dtype, np.integer
    )
    if not is_number:
        raise ValueError(
            f"images must be numbers in 0..255. Received: dtype={images.dtype}"
        )
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 255):  # also where a value is not a number
        raise ValueError(
            f"images must lie in 0..255. Received: values from {low} to {high}"
        )
    if np.issubdtype(images.dtype, np.floating):
        if high <= 1.0:
            raise ValueError(
                "images must lie in 0..255. Received: floats of at most "
                f"{high}, which look like 0..1. Multiply them by 255."
            )
        images = np.floor(images + 0.5)
    return images.astype(np.uint8)


def _check_labels(labels: np.ndarray, number: int) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (number,):
        raise ValueError(
            f"labels must be a ({number},) or ({number}, 1) array, one for each image. "
            f"Received: shape={labels.shape}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be whole numbers 0..K-1. Received: dtype={labels.dtype}"
        )
    return labels.astype(np.int64)


def _names(class_names: Sequence[str] | None, largest: int) -> list[str]:
    if class_names is None:
        return [str(number) for number in range(int(largest) + 1)]
    names = list(class_names)
    if isinstance(class_names, str) or len(set(names)) != len(names):
        raise ValueError(
            f"class_names must be different names. Received: {class_names!r}"
        )
    return names


def _check_range(labels: np.ndarray, names: list[str]) -> None:
    if len(names) < 2:
        raise ValueError(
            f"There is only one class, {names}: a classifier needs at least two."
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(wrong):
        raise ValueError(
            f"labels must lie from 0 to {len(names) - 1}, for the classes "
            f"{names[:8]}. Received: {labels[wrong[0]]} for image {wrong[0]}, and "
            f"{len(wrong) - 1} more"
        )


def _note_shared(images: np.ndarray, is_val: np.ndarray) -> None:
    """Count pictures that stand in training and in validation."""
    digests = [hashlib.blake2b(np.ascontiguousarray(i).data).digest() for i in images]
    training = {one for one, val in zip(digests, is_val, strict=True) if not val}
    shared = [
        number for number in np.flatnonzero(is_val) if digests[number] in training
    ]
    if shared:
        _LOGGER.warning(
            "%d images for validation, such as number %d, are in the training images "
            "too: scores on them say little",
            len(shared),
            shared[0],
        )
