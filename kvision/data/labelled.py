"""From labelled images to batches for classifiers: loading, resizing, augmentation.

Order and seeds: see `kvision.data.order`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from kvision.data.classification_transforms import (
    Augment,
    RandomResizedCrop,
    named_transforms,
)
from kvision.data.draws import fold
from kvision.data.image_cache import ImageCache
from kvision.data.mixing import Mix, soft_labels
from kvision.data.order import (
    CommonOptions,
    Order,
    ordered_dataset,
    refuse,
    with_attributes,
)
from kvision.data.preparation import prepare_image, resize_pixels
from kvision.data.transforms import CopyPaste, Rotate90
from kvision.data.warp import Sample
from kvision.ops.preparation import Interpolation, Preparation, check_preparation

__all__ = ["LabelledOptions", "LabelledSource", "make_labelled_dataset"]


class LabelledSource(Protocol):
    """Images and their classes, by number.

    Attributes:
        class_names: names of the classes in the order of the labels.
        labels: (N,) int32 array, 0..K-1.
        names: of the images: a file or a number, for messages.
        channels: 1 or 3.
    """

    class_names: list[str]
    labels: np.ndarray
    names: list[str]
    channels: int

    def load_image(self, index: int) -> np.ndarray:
        """Return image number `index`, (H, W, C) uint8."""

    def fingerprint(self, index: int) -> str:
        """Return a name that changes when image number `index` does."""


@dataclass(frozen=True)
class LabelledOptions(CommonOptions):
    """Arguments that `kvision.data.folders` and `arrays` share; documented there."""

    augment: Augment = False
    resize: Preparation = "crop"
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bicubic"
    label_smoothing: float = 0.0
    repeats: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_preparation(
            self.image_size, self.resize, self.crop_fraction, self.interpolation
        )
        if not 0.0 <= self.label_smoothing < 1.0:
            refuse("label_smoothing", "from 0 up to below 1", self.label_smoothing)
        if self.repeats < 1:
            refuse("repeats", "at least 1", self.repeats)
        _check_transforms(self.transforms, self.image_size)

    @property
    def transforms(self) -> list[Any]:
        """The transforms that `augment` stands for."""
        return named_transforms(self.augment)

    @property
    def crop(self) -> RandomResizedCrop | None:
        """The crop of the photo itself, if there is one."""
        first = self.transforms[:1]
        is_crop = bool(first) and isinstance(first[0], RandomResizedCrop)
        return first[0] if is_crop else None

    @property
    def changes(self) -> list[Any]:
        """The transforms of single images of the input size."""
        return [
            one
            for one in self.transforms
            if not isinstance(one, Mix | RandomResizedCrop)
        ]

    @property
    def mixes(self) -> list[Mix]:
        """The transforms of batches."""
        return [one for one in self.transforms if isinstance(one, Mix)]


def _check_transforms(transforms: list[Any], image_size: tuple[int, int]) -> None:
    kinds = [
        0 if isinstance(one, RandomResizedCrop) else 2 if isinstance(one, Mix) else 1
        for one in transforms
    ]
    if kinds != sorted(kinds) or kinds.count(0) > 1:
        refuse(
            "augment",
            "in this order: at most one RandomResizedCrop, changes of images, then "
            "MixUp and CutMix",
            transforms,
        )
    for one in transforms:
        if isinstance(one, CopyPaste):
            refuse("augment", "without CopyPaste, which needs masks", transforms)
        if isinstance(one, Rotate90) and image_size[0] != image_size[1]:
            what = f"without Rotate90 where image_size={image_size} is not square"
            refuse("augment", what, transforms)
        if not callable(one) and not isinstance(one, RandomResizedCrop):
            refuse("augment", "False, a name or a list of transforms", transforms)


def make_labelled_dataset(
    source: LabelledSource, options: LabelledOptions
) -> tf.data.Dataset:
    """Build the dataset that `kvision.data.folders` documents.

    Args:
        source: images and labels.
        options: the arguments of the user.

    Returns:
        Dataset of (images, labels), with the attributes documented there.
    """
    order = Order(len(source.labels), options, options.repeats)
    load = _loader(source, options)
    labels = tf.constant(source.labels, tf.int32)
    shape = (*options.image_size, source.channels)

    def make_sample(index: tf.Tensor, seed: tf.Tensor) -> Sample:
        sample = {"images": load(index, seed), "labels": tf.gather(labels, index)}
        for number, change in enumerate(options.changes):
            sample = change(sample, fold(seed, 1000 + number))
        image = tf.ensure_shape(sample["images"], shape)
        return {**sample, "images": image, "seed": seed}

    dataset = ordered_dataset(order, make_sample)
    finish = _finisher(options, len(source.class_names))
    dataset = dataset.map(
        finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    attributes = {
        "class_names": list(source.class_names),
        "image_names": list(source.names),
        "class_counts": np.bincount(
            source.labels, minlength=len(source.class_names)
        ).tolist(),
        "resize": options.resize,
        "crop_fraction": options.crop_fraction,
        "interpolation": options.interpolation,
    }
    return with_attributes(dataset, order, attributes)


def _finisher(
    options: LabelledOptions, num_classes: int
) -> Callable[[Sample], tuple[tf.Tensor, tf.Tensor]]:
    """Make a function from a batch of samples to images and labels."""

    @tf.autograph.experimental.do_not_convert
    def finish(batch: Sample) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels, seed = batch["images"], batch["labels"], batch["seed"][0]
        if options.mixes or options.label_smoothing:
            labels = soft_labels(labels, num_classes, options.label_smoothing)
        for number, mix in enumerate(options.mixes):
            images, labels = mix(images, labels, fold(seed, 2000 + number))
        return images, labels

    return finish


# Loading


def _loader(
    source: LabelledSource, options: LabelledOptions
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Make a function from the index of an image and a seed to the model's input."""
    images = _images(source, options)
    crop = options.crop
    shape = (*options.image_size, source.channels)

    def load(index: np.ndarray) -> np.ndarray:
        return images(int(index))[0]

    def load_tensor(index: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        image = tf.numpy_function(load, [index], tf.uint8)
        if crop is not None:
            image = tf.ensure_shape(image, (None, None, source.channels))
            image = _cut(image, crop, options.image_size, fold(seed, 1))
        return tf.ensure_shape(image, shape)

    return load_tensor


def _cut(
    image: tf.Tensor,
    crop: RandomResizedCrop,
    image_size: tuple[int, int],
    seed: tf.Tensor,
) -> tf.Tensor:
    """Cut a random part out of an image and resize it with Pillow."""

    def cut(pixels: np.ndarray, window: np.ndarray) -> np.ndarray:
        top, left, height, width = window.tolist()
        part = pixels[top : top + height, left : left + width]
        return resize_pixels(part, image_size, crop.interpolation)

    window = crop.window(tf.shape(image)[:2], seed)
    return tf.numpy_function(cut, [image, window], tf.uint8)


def _images(source: LabelledSource, options: LabelledOptions) -> ImageCache:
    """Images by number: of the input size, or whole where a part is cut out."""
    rule = (options.resize, options.crop_fraction, options.interpolation)
    size = "x".join(map(str, (*options.image_size, *rule)))

    def load(index: int) -> tuple[np.ndarray, tuple[int, int]]:
        image = source.load_image(index)
        height, width = image.shape[:2]
        if options.crop is None:
            image = prepare_image(image, options.image_size, *rule)
        return image, (height, width)

    def name(index: int) -> str:
        return f"{source.fingerprint(index)}-{'whole' if options.crop else size}"

    return ImageCache(load, name, options.cache)
