"""From records to batches: order, seeds, loading, augmentation, padding.

Everything about sample number i of epoch k follows from (seed, k, i): which image it
is and which random numbers its augmentation sees. Nothing depends on how many threads
run or where the process began, so that a resumed run continues exactly.
"""

import functools
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from kvision.data.images import Resize, fitted_size, resize_image, resized_size
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
class Options:
    """Arguments that `kvision.data.coco` and `shapes` share; documented there."""

    image_size: tuple[int, int]
    batch_size: int
    augment: bool | Sequence[Any] = False
    shuffle: bool | None = None
    seed: int = 0
    first_epoch: int | None = None
    first_step: int = 0
    max_instances: int | None = None
    mask_size: int = 56
    resize: Resize = "pad"
    cache: bool | str | os.PathLike[str] = False
    num_shards: int = 1
    shard_index: int = 0
    drop_remainder: bool | None = None

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            _refuse("image_size", "(height, width) in pixels", self.image_size)
        if self.batch_size < 1:
            _refuse("batch_size", "at least 1", self.batch_size)
        if not 0 <= self.seed < 2**31:
            _refuse("seed", "from 0 to 2**31 - 1", self.seed)
        if self.resize not in ("pad", "stretch"):
            _refuse("resize", '"pad" or "stretch"', self.resize)
        if not 0 <= self.shard_index < self.num_shards:
            what = f"from 0 to num_shards - 1 = {self.num_shards - 1}"
            _refuse("shard_index", what, self.shard_index)
        if self.mask_size < 1:
            _refuse("mask_size", "at least 1", self.mask_size)
        if self.max_instances is not None and self.max_instances < 1:
            _refuse("max_instances", "at least 1", self.max_instances)
        if self.first_step and self.first_epoch is None:
            _refuse("first_step", "given with first_epoch", self.first_step)

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

    @property
    def shuffles(self) -> bool:
        """Whether the order changes from epoch to epoch."""
        if self.shuffle is not None:
            return self.shuffle
        return bool(self.transforms) or self.first_epoch is not None


def _refuse(name: str, expected: str, received: Any) -> None:
    raise ValueError(f"{name} must be {expected}. Received: {name}={received!r}")


def make_dataset(source: Source, options: Options) -> tf.data.Dataset:
    """Build the dataset that `kvision.data.coco` documents.

    Args:
        source: images and objects.
        options: the arguments of the user.

    Returns:
        Dataset of (images, targets), with the attributes documented there.
    """
    max_instances = options.max_instances or max(1, source.largest_count())
    order = _Order(len(source), options)
    load = _loader(source, options)
    finish = _finisher(options, max_instances)

    @tf.autograph.experimental.do_not_convert
    def make_sample(key: tf.Tensor, position: tf.Tensor, index: tf.Tensor) -> Sample:
        seed = tf.cast([options.seed, key], tf.int32)
        seed = tf.random.experimental.stateless_fold_in(seed, position)
        return {**finish(load(index), seed), "seed": seed}

    dataset = order.dataset().map(
        make_sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    dataset = dataset.batch(options.batch_size, drop_remainder=order.is_full)
    for paste in (one for one in options.transforms if isinstance(one, CopyPaste)):
        dataset = _with_copy_paste(dataset, paste)
    dataset = dataset.map(_split)
    cardinality = order.steps if order.is_finite else tf.data.INFINITE_CARDINALITY
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(cardinality))
    dataset = dataset.prefetch(2).with_options(_tf_options(options))
    attributes = {
        "class_names": source.class_names,
        "category_ids": source.category_ids,
        "image_ids": source.image_ids,
        "num_images": len(source),
        "max_instances": max_instances,
        "steps_per_epoch": order.steps,
        "image_size": tuple(options.image_size),
        "resize": options.resize,
    }
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


# Order


class _Order:
    """Which image stands where: a pure function of seed, epoch and position."""

    def __init__(self, num_images: int, options: Options) -> None:
        self.num_images = num_images
        self.options = options
        self.is_finite = options.first_epoch is None
        mine = range(options.shard_index, num_images, options.num_shards)
        # Shards of equal length in training, or workers would wait for each other.
        fewest = num_images // options.num_shards
        batch = options.batch_size
        drop = options.drop_remainder
        if drop is None:
            drop = options.shuffles and fewest >= batch
        self.is_full = drop or not self.is_finite
        if drop:
            self.steps = fewest // batch
            if not self.steps:
                raise ValueError(
                    f"drop_remainder=True leaves nothing of {fewest} images in batches "
                    f"of {batch}. Choose a smaller batch_size."
                )
        else:
            most = -(-num_images // options.num_shards)
            self.steps = -(-(len(mine) if self.is_finite else most) // batch)
        # An endless dataset fills up its last batch of an epoch from its beginning.
        self.count = self.steps * batch if self.is_full else len(mine)

    def dataset(self) -> tf.data.Dataset:
        """Make (key of the epoch, position, index of the image), all int64."""
        if self.is_finite:
            epochs = self._counted_epochs()
        else:
            epochs = tf.data.Dataset.range(self.options.first_epoch, 2**31 - 1)
        dataset = epochs.flat_map(self._epoch)
        skipped = self.options.first_step * self.options.batch_size
        return dataset.skip(skipped) if skipped else dataset

    def _counted_epochs(self) -> tf.data.Dataset:
        """One element: how often this dataset has been iterated over before."""
        if not (self.options.shuffles or self.options.transforms):
            return tf.data.Dataset.range(1)
        counter = itertools.count()

        def next_epoch() -> np.ndarray:
            return np.asarray(next(counter), np.int64)

        def draw(_: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(next_epoch, [], tf.int64), ())

        return tf.data.Dataset.range(1).map(draw)

    def _epoch(self, key: tf.Tensor) -> tf.data.Dataset:
        seed = tf.cast([self.options.seed, key], tf.int32)
        indices = tf.range(self.num_images, dtype=tf.int64)
        if self.options.shuffles:
            draws = tf.random.stateless_uniform(
                [self.num_images], seed, None, None, tf.int32, alg="philox"
            )
            indices = tf.cast(tf.argsort(draws, stable=True), tf.int64)

        def place(position: tf.Tensor) -> tuple[tf.Tensor, ...]:
            overall = position * self.options.num_shards + self.options.shard_index
            return key, overall, indices[overall % self.num_images]

        return tf.data.Dataset.range(self.count).map(place)


def _tf_options(options: Options) -> tf.data.Options:
    result = tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy
    done = options.num_shards > 1
    result.experimental_distribute.auto_shard_policy = (
        policy.OFF if done else policy.DATA
    )
    return result


# Loading


def _loader(source: Source, options: Options) -> Callable[[tf.Tensor], Sample]:
    """Make a function from the index of an image to a sample in its own pixels."""
    images = _Images(source, options)
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


class _Images:
    """Images by number: from their source, from memory or from a folder.

    A cached image is kept no larger than the model and the largest zoom can use.
    """

    def __init__(self, source: Source, options: Options) -> None:
        self.source = source
        self.options = options
        self.cache = options.cache
        self.memory: dict[int, tuple[np.ndarray, tuple[int, int]]] = {}
        self.zoom = float(np.prod([move.zoom for move in options.moves]))

    def __call__(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Return an image and the (height, width) of its original."""
        if self.cache is False:
            image = self.source.load_image(index)
            return image, image.shape[:2]
        if self.cache is True:
            if index not in self.memory:
                self.memory[index] = self._load_small(index)
            return self.memory[index]
        return self._from_folder(index, Path(self.cache))

    def _load_small(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        image = self.source.load_image(index)
        height, width = image.shape[:2]
        fitted = resized_size(
            height, width, self.options.image_size, self.options.resize
        )
        largest = tuple(int(np.ceil(side * self.zoom)) for side in fitted)
        if largest[0] >= height or largest[1] >= width:
            return image, (height, width)
        small = resize_image(image, (largest[0], largest[1]), "stretch").numpy()
        return small, (height, width)

    def _from_folder(
        self, index: int, folder: Path
    ) -> tuple[np.ndarray, tuple[int, int]]:
        size = "x".join(map(str, (*self.options.image_size, self.options.resize)))
        name = f"{self.source.fingerprint(index)}-{size}-{self.zoom:g}.npz"
        path = folder / name
        if path.exists():
            with np.load(path, allow_pickle=False) as content:
                height, width = content["size"].tolist()
                return content["image"], (height, width)
        image, original = self._load_small(index)
        folder.mkdir(parents=True, exist_ok=True)
        # Renamed when complete: a killed run leaves no half image behind.
        part = folder / f".{name}.{os.getpid()}.{threading.get_ident()}"
        with open(part, "wb") as file:
            np.savez(file, image=image, size=np.asarray(original))
        os.replace(part, path)
        return image, original


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
