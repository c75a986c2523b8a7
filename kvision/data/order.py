"""Which image stands where, and what every dataset of kvision shares.

Everything about sample number i of epoch k follows from (seed, k, i): which image it
is and which random numbers its augmentation sees. Nothing depends on how many threads
run or where the process began, so that a resumed run continues exactly.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["CommonOptions", "Order", "ordered_dataset", "refuse", "with_attributes"]


@dataclass(frozen=True)
class CommonOptions:
    """Arguments that all datasets share; documented in `kvision.data.coco`."""

    image_size: tuple[int, int]
    batch_size: int
    augment: Any = False
    shuffle: bool | None = None
    seed: int = 0
    first_epoch: int | None = None
    first_step: int = 0
    cache: bool | str | os.PathLike[str] = False
    num_shards: int = 1
    shard_index: int = 0
    drop_remainder: bool | None = None

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            refuse("image_size", "(height, width) in pixels", self.image_size)
        if self.batch_size < 1:
            refuse("batch_size", "at least 1", self.batch_size)
        if not 0 <= self.seed < 2**31:
            refuse("seed", "from 0 to 2**31 - 1", self.seed)
        if not 0 <= self.shard_index < self.num_shards:
            what = f"from 0 to num_shards - 1 = {self.num_shards - 1}"
            refuse("shard_index", what, self.shard_index)
        if self.first_step and self.first_epoch is None:
            refuse("first_step", "given with first_epoch", self.first_step)

    @property
    def transforms(self) -> Sequence[Any]:
        """The transforms that `augment` stands for."""
        raise NotImplementedError

    @property
    def shuffles(self) -> bool:
        """Whether the order changes from epoch to epoch."""
        if self.shuffle is not None:
            return self.shuffle
        return bool(self.transforms) or self.first_epoch is not None


def refuse(name: str, expected: str, received: Any) -> None:
    """Raise a `ValueError` for an argument that does not fit."""
    raise ValueError(f"{name} must be {expected}. Received: {name}={received!r}")


class Order:
    """Which image stands where: a pure function of seed, epoch and position.

    Args:
        num_images: of the data.
        options: arguments of the user.
        repeats: how often an image stands in a row. An epoch keeps its length, so it
            sees only one in `repeats` of the images.

    Attributes:
        steps: batches of an epoch.
        is_full: whether every batch is.
    """

    def __init__(
        self, num_images: int, options: CommonOptions, repeats: int = 1
    ) -> None:
        self.num_images = num_images
        self.options = options
        self.repeats = repeats
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
            turn = overall // self.repeats
            return key, overall, indices[turn % self.num_images]

        return tf.data.Dataset.range(self.count).map(place)


def ordered_dataset(
    order: Order, make_sample: Callable[[tf.Tensor, tf.Tensor], Any]
) -> tf.data.Dataset:
    """Make batches of samples in an order.

    Args:
        order: which image stands where.
        make_sample: takes the index of an image, () int64, and the seed of the sample,
            (2,) int32; returns its tensors.

    Returns:
        Dataset of batches.
    """
    options = order.options

    @tf.autograph.experimental.do_not_convert
    def make(key: tf.Tensor, position: tf.Tensor, index: tf.Tensor) -> Any:
        seed = tf.cast([options.seed, key], tf.int32)
        seed = tf.random.experimental.stateless_fold_in(seed, position)
        return make_sample(index, seed)

    dataset = order.dataset().map(
        make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return dataset.batch(options.batch_size, drop_remainder=order.is_full)


def with_attributes(
    dataset: tf.data.Dataset, order: Order, attributes: dict[str, Any]
) -> tf.data.Dataset:
    """Finish a dataset: its length, prefetching, sharding, and what is known of it.

    Args:
        dataset: of batches in an order.
        order: the order.
        attributes: name -> value; num_images, steps_per_epoch and image_size are added.

    Returns:
        The dataset with these attributes.
    """
    cardinality = order.steps if order.is_finite else tf.data.INFINITE_CARDINALITY
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(cardinality))
    dataset = dataset.prefetch(2).with_options(_tf_options(order.options))
    attributes = {
        **attributes,
        "num_images": order.num_images,
        "steps_per_epoch": order.steps,
        "image_size": tuple(order.options.image_size),
    }
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def _tf_options(options: CommonOptions) -> tf.data.Options:
    result = tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy
    done = options.num_shards > 1
    result.experimental_distribute.auto_shard_policy = (
        policy.OFF if done else policy.DATA
    )
    return result
