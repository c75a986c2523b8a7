"""From records of objects to batches: loading, augmentation, padding.

Order and seeds: see `kvision.data.order`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from kvision.data.image_cache import ImageCache
from kvision.data.images import (
    Resize,
    fitted_size,
    resample,
    resample_fast,
    resize_image,
    resized_size,
)
from kvision.data.order import (
    CommonOptions,
    Order,
    ordered_dataset,
    refuse,
    with_attributes,
)
from kvision.data.transforms import CopyPaste, Move, compose, default_transforms
from kvision.data.warp import Sample, affine, pad_rows, warp

__all__ = ["Options", "Source", "make_dataset"]

_TARGETS = ("gt_boxes", "gt_labels", "gt_masks")


class Source(Protocol):
    """Images and their objects, by number."""

    class_names: list[str]
    category_ids: list[int]
    image_ids: list[int]
    has_masks: bool

    def __len__(self) -> int:
        """Return the number of images."""

    def load_image(self, index: int) -> np.ndarray:
        """Return image number `index`, (H, W, 3) uint8."""

    def load_objects(
        self, index: int, cells: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (G, 4) boxes, (G,) labels and (G, cells, cells) uint8 masks."""

    def largest_count(self) -> int:
        """Return how many objects the most crowded image has."""

    def fingerprint(self, index: int) -> str:
        """Return a name that changes when image number `index` does."""


@dataclass(frozen=True)
class Options(CommonOptions):
    """Arguments that `kvision.data.coco` and `shapes` share; documented there."""

    max_instances: int | None = None
    mask_size: int = 56
    resize: Resize = "pad"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize not in ("pad", "stretch"):
            refuse("resize", '"pad" or "stretch"', self.resize)
        if self.mask_size < 1:
            refuse("mask_size", "at least 1", self.mask_size)
        if self.max_instances is not None and self.max_instances < 1:
            refuse("max_instances", "at least 1", self.max_instances)

    @property
    def transforms(self) -> list[Any]:
        """The transforms that `augment` stands for."""
        if isinstance(self.augment, bool):
            return default_transforms() if self.augment else []
        return list(self.augment)

    @property
    def moves(self) -> list[Move]:
        """The transforms that are affine maps."""
        return [one for one in self.transforms if isinstance(one, Move)]


def make_dataset(source: Source, options: Options) -> tf.data.Dataset:
    """Build the dataset that `kvision.data.coco` documents.

    Args:
        source: images and objects.
        options: the arguments of the user.

    Returns:
        Dataset of (images, targets), with the attributes documented there.
    """
    max_instances = options.max_instances or max(1, source.largest_count())
    order = Order(len(source), options)
    load = _loader(source, options)
    finish = _finisher(options, max_instances)

    def make_sample(index: tf.Tensor, seed: tf.Tensor) -> Sample:
        return {**finish(load(index), seed), "seed": seed}

    dataset = ordered_dataset(order, make_sample)
    for paste in (one for one in options.transforms if isinstance(one, CopyPaste)):
        dataset = _with_copy_paste(dataset, paste)
    attributes = {
        "class_names": source.class_names,
        "category_ids": source.category_ids,
        "image_ids": source.image_ids,
        "max_instances": max_instances,
        "resize": options.resize,
    }
    return with_attributes(dataset.map(_split), order, attributes)


# Loading


def _loader(source: Source, options: Options) -> Callable[[tf.Tensor], Sample]:
    """Make a function from the index of an image to a sample in its own pixels."""
    images = _images(source, options)
    cells = options.mask_size
    ids = np.asarray(source.image_ids, np.int64)

    load_objects = source.load_objects
    if options.cache is True:
        load_objects = functools.cache(load_objects)

    def load(index: np.ndarray) -> tuple[np.ndarray, ...]:
        number = int(index)
        image, size = images(number)
        boxes, labels, masks = load_objects(number, cells)
        # A cached image may be smaller than the file whose pixels the boxes count.
        scale = np.divide(image.shape[:2], size)[[1, 0, 1, 0]]
        boxes = (boxes * scale).astype(np.float32)
        return image, boxes, labels, masks, ids[number], np.asarray(size, np.int32)

    types = [tf.uint8, tf.float32, tf.int32, tf.uint8, tf.int64, tf.int32]
    shapes = [(None, None, 3), (None, 4), (None,), (None, cells, cells), (), (2,)]
    names = ["images", *_TARGETS, "image_ids", "original_sizes"]

    def load_tensors(index: tf.Tensor) -> Sample:
        values = tf.numpy_function(load, [index], types)
        sample = {
            name: tf.ensure_shape(value, shape)
            for name, value, shape in zip(names, values, shapes, strict=True)
        }
        if not source.has_masks:
            del sample["gt_masks"]
        return sample

    return load_tensors


def _images(source: Source, options: Options) -> ImageCache:
    """Images by number, kept no larger than the model and the largest zoom can use."""
    zoom = float(np.prod([move.zoom for move in options.moves]))
    size = "x".join(map(str, (*options.image_size, options.resize)))

    def load(index: int) -> tuple[np.ndarray, tuple[int, int]]:
        image = source.load_image(index)
        height, width = image.shape[:2]
        if options.cache is False:
            return image, (height, width)
        fitted = resized_size(height, width, options.image_size, options.resize)
        largest = tuple(int(np.ceil(side * zoom)) for side in fitted)
        if largest[0] >= height or largest[1] >= width:
            return image, (height, width)
        small = resize_image(image, (largest[0], largest[1]), "stretch").numpy()
        return small, (height, width)

    def name(index: int) -> str:
        return f"{source.fingerprint(index)}-{size}-{zoom:g}"

    return ImageCache(load, name, options.cache)


# Augmentation


def _finisher(
    options: Options, max_instances: int
) -> Callable[[Sample, tf.Tensor], Sample]:
    """Make a function that augments a loaded sample and fits it to the model."""
    height, width = options.image_size
    changes = [
        one for one in options.transforms if not isinstance(one, Move | CopyPaste)
    ]

    def finish(sample: Sample, seed: tf.Tensor) -> Sample:
        size = tf.cast(tf.shape(sample["images"])[:2], tf.float64)
        old = size
        matrix, size = compose(options.moves, seed, size)
        fitted = fitted_size(size, options.image_size, options.resize)
        scale = tf.cast(fitted, tf.float64) / size
        matrix = affine([[scale[1], 0, 0], [0, scale[0], 0]]) @ matrix
        sample = warp(
            sample,
            matrix,
            options.image_size,
            options.mask_size,
            is_upright=all(move.is_upright for move in options.moves),
            # Without augmentation as in prediction, to the last grey level.
            resample=resample_fast if options.moves else resample,
        )
        sample["images"] = tf.ensure_shape(sample["images"], (height, width, 3))
        sample["image_sizes"] = _covered(matrix, old, options.image_size)
        original = tf.cast(sample["original_sizes"], tf.float64)
        sample["scales"] = tf.cast(tf.cast(fitted, tf.float64) / original, tf.float32)
        for number, change in enumerate(changes):
            step = tf.random.experimental.stateless_fold_in(seed, 1000 + number)
            sample = change(sample, step)
        return pad_rows(sample, max_instances)

    return finish


def _covered(
    matrix: tf.Tensor, old: tf.Tensor, image_size: tuple[int, int]
) -> tf.Tensor:
    """Find the height and width beyond which a moved image leaves only padding."""
    height, width = old[0], old[1]
    corners = tf.stack([[0, width, 0, width], [0, 0, height, height], [1.0] * 4])
    reach = tf.reduce_max(tf.linalg.matmul(matrix[:2], corners), axis=1)
    reach = tf.gather(reach, (1, 0))
    reach = tf.cast(tf.floor(reach + 0.5), tf.int32)
    return tf.clip_by_value(reach, 1, tf.constant(image_size))


def _with_copy_paste(dataset: tf.data.Dataset, paste: CopyPaste) -> tf.data.Dataset:
    """Give every sample of a batch its neighbour as donor."""

    def paste_one(pair: tuple[Sample, Sample]) -> Sample:
        sample, donor = dict(pair[0]), pair[1]
        seed = sample.pop("seed")
        step = tf.random.experimental.stateless_fold_in(seed, 2000)
        return {**paste(sample, step, donor), "seed": seed}

    @tf.autograph.experimental.do_not_convert
    def paste_batch(batch: Sample) -> Sample:
        donors = {name: tf.roll(value, 1, axis=0) for name, value in batch.items()}
        signature = {
            name: tf.TensorSpec(value.shape[1:], value.dtype)
            for name, value in batch.items()
        }
        return tf.map_fn(paste_one, (batch, donors), fn_output_signature=signature)

    return dataset.map(
        paste_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def _split(batch: Sample) -> tuple[tf.Tensor, Sample]:
    del batch["seed"]
    return batch.pop("images"), batch
