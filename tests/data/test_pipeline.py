"""Order, seeds, resuming, shards and caches: pure functions of seed and epoch."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kvision.data import CopyPaste, HorizontalFlip, LargeScaleJitter, Photometric
from kvision.data.images import resize_image
from kvision.data.pipeline import Options, make_dataset
from kvision.data.warp import affine, warp

SIZE = (24, 32)
AUGMENT = [HorizontalFlip(), LargeScaleJitter(0.5, 2.0), Photometric()]


class Numbered:
    """Image number i is grey of value 10 * i, with i % 3 objects."""

    has_masks = True

    def __init__(self, number: int = 7, side: int = 20) -> None:
        self.class_names = ["a", "b"]
        self.category_ids = [1, 2]
        self.number = number
        self.side = side
        self.image_ids = [100 + index for index in range(number)]
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return self.number

    def load_image(self, index: int) -> np.ndarray:
        self.loaded.append(index)
        ramp = np.arange(self.side, dtype=np.uint8)[:, None, None]
        return np.broadcast_to(ramp + 10 * index, (self.side, self.side, 3)).copy()

    def load_objects(self, index: int, cells: int) -> tuple[np.ndarray, ...]:
        count = index % 3
        boxes = np.array([[2, 3, 12, 9]] * count, np.float32).reshape(-1, 4)
        masks = np.full((count, cells, cells), 255, np.uint8)
        return boxes, np.zeros(count, np.int32), masks

    def largest_count(self) -> int:
        return 2

    def fingerprint(self, index: int) -> str:
        return f"numbered{index}"


def make(source: Any = None, **options: Any) -> Any:
    options = {"image_size": SIZE, "batch_size": 2, "mask_size": 8, **options}
    return make_dataset(source or Numbered(), Options(**options))


def arrays(dataset: Any, number: int | None = None) -> list[dict[str, np.ndarray]]:
    return [
        {"images": images.numpy(), **{k: v.numpy() for k, v in targets.items()}}
        for images, targets in itertools.islice(dataset, number)
    ]


def ids(dataset: Any, number: int | None = None) -> list[int]:
    return [i for batch in arrays(dataset, number) for i in batch["image_ids"]]


def same(first: list[dict], second: list[dict]) -> bool:
    return len(first) == len(second) and all(
        a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
        for a, b in zip(first, second, strict=True)
    )


def test_contract() -> None:
    dataset = make()
    assert isinstance(dataset, tf.data.Dataset)
    images, targets = dataset.element_spec
    assert (images.shape.as_list(), images.dtype) == ([None, 24, 32, 3], tf.uint8)
    expected = {
        "gt_boxes": ([None, 2, 4], tf.float32),
        "gt_labels": ([None, 2], tf.int32),
        "gt_masks": ([None, 2, 8, 8], tf.uint8),
        "image_ids": ([None], tf.int64),
        "image_sizes": ([None, 2], tf.int32),
        "original_sizes": ([None, 2], tf.int32),
        "scales": ([None, 2], tf.float32),
    }
    assert {k: (v.shape.as_list(), v.dtype) for k, v in targets.items()} == expected
    assert dataset.class_names == ["a", "b"]
    assert dataset.num_images == 7
    assert dataset.max_instances == 2
    assert dataset.steps_per_epoch == 4 == len(dataset)
    assert dataset.image_size == SIZE


def test_values_by_hand() -> None:
    """20 x 20 in 24 x 32: scale 1.2, 8 columns of padding."""
    batches = arrays(make())
    assert [len(batch["images"]) for batch in batches] == [2, 2, 2, 1]
    second = batches[1]  # images 2 and 3 with 2 and 0 objects
    box = np.array([2, 3, 12, 9]) * np.float32(1.2)
    np.testing.assert_allclose(second["gt_boxes"][0], [box, box], rtol=1e-6)
    np.testing.assert_array_equal(second["gt_labels"], [[0, 0], [-1, -1]])
    assert (second["gt_masks"][0] == 255).all()
    assert not second["gt_masks"][1].any()
    assert not second["gt_boxes"][1].any()
    np.testing.assert_array_equal(second["image_sizes"], [[24, 24]] * 2)
    np.testing.assert_array_equal(second["original_sizes"], [[20, 20]] * 2)
    np.testing.assert_allclose(second["scales"], 1.2)
    assert not second["images"][:, :, 24:].any()
    assert second["images"][1, 0, 0, 0] == 30


def test_plain_order_is_that_of_the_data() -> None:
    assert ids(make()) == list(range(100, 107))


def test_every_iteration_has_its_own_order() -> None:
    dataset = make(shuffle=True, drop_remainder=False)
    epochs = [ids(dataset) for _ in range(4)]
    assert all(sorted(epoch) == list(range(100, 107)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    again = make(shuffle=True, drop_remainder=False)
    assert [ids(again) for _ in range(4)] == epochs
    other = make(shuffle=True, drop_remainder=False, seed=1)
    assert ids(other) != epochs[0]


def test_iteration_k_is_epoch_k() -> None:
    """Finite and endless sets, begun anywhere, agree on every number."""
    options = {"augment": AUGMENT, "seed": 3, "drop_remainder": True}
    finite = make(**options)
    epochs = [arrays(finite) for _ in range(3)]
    assert not same(epochs[0], epochs[1])
    steps = finite.steps_per_epoch
    assert steps == 3
    endless = arrays(make(**options, first_epoch=0), 3 * steps)
    assert same(endless, [*epochs[0], *epochs[1], *epochs[2]])
    resumed = arrays(make(**options, first_epoch=1), 2 * steps)
    assert same(resumed, endless[steps:])
    within = arrays(make(**options, first_epoch=1, first_step=2), steps)
    assert same(within, endless[steps + 2 : 2 * steps + 2])


def test_copy_paste_is_resumed_too() -> None:
    augment = [HorizontalFlip(), CopyPaste(1.0, 1.0)]
    options = {"augment": augment, "first_epoch": 0, "max_instances": 4}
    endless = arrays(make(**options), 6)
    assert same(arrays(make(**{**options, "first_epoch": 1}), 2), endless[3:5])
    counts = [(batch["gt_labels"] >= 0).sum() for batch in endless]
    assert max(counts) > 3  # without pasting a batch has at most 2 + 1 objects


def test_endless_set_fills_its_last_batch() -> None:
    dataset = make(first_epoch=0, drop_remainder=False, batch_size=4)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    assert dataset.steps_per_epoch == 2
    epoch = ids(dataset, 2)
    assert len(epoch) == 8
    assert set(epoch) == set(range(100, 107))
    assert epoch[7] == epoch[0]


def test_shuffled_sets_drop_an_incomplete_batch() -> None:
    assert make(augment=AUGMENT).steps_per_epoch == 3
    assert make(augment=AUGMENT, drop_remainder=False).steps_per_epoch == 4
    # Fewer images than a batch holds: better a small batch than none.
    few = make(Numbered(3), augment=AUGMENT, batch_size=8)
    assert len(ids(few)) == 3
    with pytest.raises(ValueError, match="nothing of 3 images in batches of 8"):
        make(Numbered(3), batch_size=8, drop_remainder=True)


def test_shards_share_the_data() -> None:
    shards = [make(num_shards=2, shard_index=index) for index in (0, 1)]
    assert sorted(ids(shards[0]) + ids(shards[1])) == list(range(100, 107))
    options = {"shuffle": True, "num_shards": 2, "seed": 5}
    first, second = (make(**options, shard_index=index) for index in (0, 1))
    for _ in range(2):
        mine, yours = ids(first), ids(second)
        assert len(mine) == len(yours) == 2
        assert not set(mine) & set(yours)


@pytest.mark.parametrize("augment", [False, AUGMENT])
def test_caches_change_nothing(tmp_path: Path, augment: Any) -> None:
    options = {"augment": augment, "drop_remainder": False}
    plain = arrays(make(**options))
    for cache in (True, tmp_path):
        source = Numbered()
        dataset = make(source, **options, cache=cache)
        assert same(arrays(dataset), plain)
        list(dataset)
        assert sorted(source.loaded) == list(range(7))
    # The folder serves the next run.
    source = Numbered()
    assert same(arrays(make(source, **options, cache=tmp_path)), plain)
    assert not source.loaded


def test_large_images_are_cached_small() -> None:
    source = Numbered(side=96)
    plain, cached = (arrays(make(source, cache=cache))[0] for cache in (False, True))
    np.testing.assert_array_equal(plain["images"], cached["images"])
    np.testing.assert_allclose(plain["gt_boxes"], cached["gt_boxes"], rtol=1e-5)
    np.testing.assert_array_equal(cached["original_sizes"], [[96, 96]] * 2)
    np.testing.assert_allclose(cached["scales"], 0.25)


@pytest.mark.parametrize("side", [20, 96])
def test_images_without_augmentation_are_those_of_prediction(side: int) -> None:
    source = Numbered(side=side)
    image = arrays(make(source), 1)[0]["images"][1]
    np.testing.assert_array_equal(image, resize_image(source.load_image(1), SIZE))


def test_augmented_images_are_within_a_grey_level() -> None:
    source = Numbered(side=96)
    matrix = affine([[0.25, 0, 0], [0, 0.25, 0]])
    [found] = arrays(make(source, augment=[HorizontalFlip(0.0)], shuffle=False), 1)
    sample = {"images": tf.constant(source.load_image(1))}
    exact = warp(sample, matrix, SIZE)["images"].numpy()
    np.testing.assert_allclose(
        found["images"][1].astype(int), exact.astype(int), rtol=0, atol=1
    )


def test_max_instances_cuts() -> None:
    batch = arrays(make(max_instances=1))[1]
    assert batch["gt_boxes"].shape == (2, 1, 4)
    np.testing.assert_array_equal(batch["gt_labels"], [[0], [-1]])


def test_functions_of_ones_own() -> None:
    def invert(sample: dict, seed: tf.Tensor) -> dict:
        assert seed.shape == (2,)
        return {**sample, "images": 255 - sample["images"]}

    plain = arrays(make())[0]["images"]
    inverted = arrays(make(augment=[invert], shuffle=False))[0]["images"]
    np.testing.assert_array_equal(inverted, 255 - plain)


def test_loading_errors_name_the_image() -> None:
    class Broken(Numbered):
        def load_image(self, index: int) -> np.ndarray:
            raise ValueError(f"image{index}.png is damaged")

    with pytest.raises(tf.errors.OpError, match=r"image0\.png is damaged"):
        arrays(make(Broken(), batch_size=1), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (0, 4)}, r"image_size must be \(height, width\)"),
        ({"batch_size": 0}, "batch_size must be at least 1. Received: batch_size=0"),
        ({"resize": "crop"}, "resize must be"),
        ({"shard_index": 2, "num_shards": 2}, "from 0 to num_shards - 1 = 1"),
        ({"seed": -1}, "seed must be from 0"),
        ({"mask_size": 0}, "mask_size must be"),
        ({"max_instances": 0}, "max_instances must be"),
        ({"first_step": 3}, "first_step must be given with first_epoch"),
    ],
)
def test_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)
