"""ROIAlign: both formulations, three modes, by hand and against slow references."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from kvision.ops import roi as roi_ops
from kvision.ops.roi import MODES, assign_levels, multilevel_roi_align
from kvision.ops.tracing import tflite_tracing, tracing_for_tflite
from tests.ops.modes import assert_modes_agree, to_numpy
from tests.parity import numpy_reference as reference

IMAGE_SIZE = (64, 96)
# Inside, whole image, over two corners, tiny, a point, no width, outside, far outside.
ROIS = np.array(
    [
        [8, 8, 40, 40],
        [0, 0, 96, 64],
        [-20, -12, 30, 20],
        [80, 50, 130, 90],
        [20, 20, 20.5, 20.5],
        [33, 17, 33, 17],
        [40, 10, 40, 50],
        [-3.9, -3.9, 4, 4],
        [300, 300, 340, 360],
        [95.9, 63.9, 96, 64],
        [3.3, 5.7, 61.2, 22.9],
    ],
    np.float32,
)
IMAGES = (np.arange(len(ROIS)) % 2).astype(np.int32)


def pyramid(levels: range, channels: int = 3, batch: int = 2) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        level: rng.uniform(
            -1,
            1,
            (batch, *(math.ceil(s / 2**level) for s in IMAGE_SIZE), channels),
        ).astype(np.float32)
        for level in levels
    }


@pytest.fixture(params=["fused", "gather"])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`multilevel_roi_align` with one of its two formulations, in eager mode."""
    use_gather = request.param == "gather"
    monkeypatch.setattr(roi_ops, "static_shapes_required", lambda: use_gather)

    def run(*args: object, **kwargs: object) -> np.ndarray:
        return to_numpy(multilevel_roi_align(*args, **kwargs))

    return run


# A ramp f(y, x) = x on a 4 x 4 map of stride 4, RoI (4, 4, 12, 12) = cells 1 to 3.
# Unaligned, 2 bins of 2 samples: samples at 1.25 1.75 | 2.25 2.75, means 1.5 and 2.5.
# Aligned: everything half a cell less, 1.0 and 2.0.
# crop_and_resize: corners 4/16 * 3 = 0.75 and 12/16 * 3 = 2.25.
@pytest.mark.parametrize(
    ("mode", "expected"),
    [("unaligned", [1.5, 2.5]), ("aligned", [1, 2]), ("crop_and_resize", [0.75, 2.25])],
)
def test_ramp_by_hand(pool: Callable, mode: str, expected: list[float]) -> None:
    ramp = np.tile(np.arange(4, dtype=np.float32), (4, 1))[None, :, :, None]
    roi, image = np.array([[4, 4, 12, 12]], np.float32), np.zeros(1, np.int32)
    for feature_map, row in ((ramp, True), (ramp.transpose(0, 2, 1, 3), False)):
        pooled = pool({2: feature_map}, roi, image, (16, 16), 2, 2, mode)[0, ..., 0]
        wanted = np.tile(expected, (2, 1))
        np.testing.assert_allclose(pooled, wanted if row else wanted.T, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_constant_map_gives_the_constant(pool: Callable, mode: str) -> None:
    features = {2: np.full((1, 16, 24, 2), 3.5, np.float32)}
    rois = np.array([[0, 0, 96, 64], [10, 3, 50, 60]], np.float32)
    pooled = pool(features, rois, np.zeros(2, np.int32), IMAGE_SIZE, 5, 2, mode)
    np.testing.assert_allclose(pooled, 3.5, rtol=1e-6)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(
    ("cells", "ratio"), [(7, 2), (2, 1), (3, 3), (1, 1), (1, 2), (7, 0)]
)
def test_equals_the_slow_reference(
    pool: Callable, aligned: bool, cells: int, ratio: int
) -> None:
    features = pyramid(range(2, 3))
    mode = "aligned" if aligned else "unaligned"
    pooled = pool(features, ROIS, IMAGES, IMAGE_SIZE, cells, ratio, mode)
    for i, roi in enumerate(ROIS):
        grid = features[2][IMAGES[i]]
        expected = reference.roi_align(grid, roi, 4.0, cells, ratio, aligned)
        np.testing.assert_allclose(pooled[i], expected, atol=2e-5, err_msg=f"{roi}")


# Over the map, longer than it, beside it, of a fraction of a cell, of whole cells: bins
# of up to 5 cells, or of 12 where the region is narrow.
LARGE_ROIS = np.array(
    [
        [0, 0, 560, 420],
        [-40, 16, 600, 60],
        [30, -20, 50, 500],
        [700, 0, 760, 300],
        [90, 77, 90.3, 400],
        [28, 56, 140, 280],
        [28, 56, 84, 140],
        [3, 9, 277, 411],
    ],
    np.float32,
)


@pytest.mark.parametrize("aligned", [False, True])
def test_as_many_samples_as_cells(pool: Callable, aligned: bool) -> None:
    """Each region has its own number; detectron2's rule, which rounds it up."""
    rng = np.random.default_rng(6)
    features = {4: rng.uniform(-1, 1, (1, 30, 40, 2)).astype(np.float32)}
    mode = "aligned" if aligned else "unaligned"
    images = np.zeros(len(LARGE_ROIS), np.int32)
    pooled = pool(features, LARGE_ROIS, images, (480, 640), 7, 0, mode)
    fixed = pool(features, LARGE_ROIS, images, (480, 640), 7, 2, mode)
    for i, roi in enumerate(LARGE_ROIS):
        expected = reference.roi_align(features[4][0], roi, 16.0, 7, 0, aligned)
        np.testing.assert_allclose(pooled[i], expected, atol=2e-5, err_msg=f"{roi}")
    assert np.abs(pooled - fixed).max() > 0.1


def test_too_large_regions_have_fewer_samples(pool: Callable) -> None:
    """Bins of 18 and 25 cells; the mean of a ramp is in the middle all the same."""
    column = np.arange(200, dtype=np.float32)
    ramps = np.stack(np.broadcast_arrays(column[:, None], column[None]), axis=-1)
    rois = np.array([[20, 40, 720, 544], [40, 40, 768, 80]], np.float32)
    args = (rois, np.zeros(2, np.int32), (800, 800), 7, 0, "unaligned")
    pooled = pool({2: ramps[None]}, *args)
    for (x1, y1, x2, y2), bins in zip(rois / 4, pooled, strict=True):
        middles = (np.arange(7) + 0.5) / 7
        np.testing.assert_allclose(bins[:, 0, 0], y1 + middles * (y2 - y1), rtol=1e-5)
        np.testing.assert_allclose(bins[0, :, 1], x1 + middles * (x2 - x1), rtol=1e-5)


@pytest.mark.parametrize("cells", [7, 2, 1])
def test_crop_and_resize_mode_equals_tensorflow(pool: Callable, cells: int) -> None:
    features = pyramid(range(2, 3))
    pooled = pool(features, ROIS, IMAGES, IMAGE_SIZE, cells, 2, "crop_and_resize")
    height, width = IMAGE_SIZE
    boxes = ROIS[:, [1, 0, 3, 2]] / np.array([height, width, height, width], "f4")
    expected = tf.image.crop_and_resize(features[2], boxes, IMAGES, [cells, cells])
    slow = [
        reference.crop_and_resize(features[2][image], box, cells)
        for image, box in zip(IMAGES, boxes, strict=True)
    ]
    np.testing.assert_allclose(to_numpy(expected), slow, atol=2e-5)
    np.testing.assert_allclose(pooled, to_numpy(expected), atol=2e-5)


# The three modes, and as many samples as cells.
SAMPLINGS = [*((mode, 2) for mode in MODES), ("aligned", 0)]


@pytest.mark.parametrize(("mode", "ratio"), SAMPLINGS)
def test_both_formulations_and_every_mode_agree(mode: str, ratio: int) -> None:
    """Eager and graph take the fused kernel, XLA the gathers: values and gradients."""
    features = pyramid(range(2, 6))
    rng = np.random.default_rng(1)
    corners = rng.uniform(-10, 110, (40, 2, 2))
    rois = np.concatenate([corners.min(1), corners.max(1)], 1).astype("f4")
    rois = np.concatenate([rois, ROIS])
    images = (np.arange(len(rois)) % 2).astype(np.int32)
    upstream = rng.uniform(-1, 1, (len(rois), 7, 7, 3)).astype(np.float32)

    def value_and_gradient(features: dict) -> tuple:
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = multilevel_roi_align(
                # small RoIs at a canonical size of 36 px fill all four levels
                features, rois, images, IMAGE_SIZE, 7, ratio, mode, canonical_size=36.0
            )  # fmt: skip
            total = tf.reduce_sum(pooled * upstream)
        return pooled, tape.gradient(total, features)

    levels = to_numpy(assign_levels(rois, 2, 5, canonical_size=36.0))
    assert set(levels) == {2, 3, 4, 5}
    _, gradients = assert_modes_agree(value_and_gradient, features, atol=2e-5)
    for gradient in gradients.values():
        assert np.abs(gradient).max() > 0.1


@pytest.mark.parametrize(("mode", "ratio"), SAMPLINGS)
def test_formulation_for_tflite_is_equal(mode: str, ratio: int) -> None:
    features = pyramid(range(2, 6))

    def run() -> np.ndarray:
        pooled = multilevel_roi_align(
            features, ROIS, IMAGES, IMAGE_SIZE, 7, ratio, mode
        )
        return to_numpy(pooled)

    expected = run()
    with tflite_tracing():
        assert tracing_for_tflite()
        chained = run()
    assert not tracing_for_tflite()
    np.testing.assert_allclose(chained, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_gradient_equals_differences(pool: Callable, mode: str) -> None:
    """Pooling is linear in the features, so differences are exact up to rounding."""
    features = np.random.default_rng(2).uniform(-1, 1, (1, 4, 5, 1)).astype("f4")
    roi, image = np.array([[2, 3, 17, 14]], np.float32), np.zeros(1, np.int32)
    upstream = np.random.default_rng(3).uniform(-1, 1, (1, 2, 2, 1)).astype("f4")

    def total(x: np.ndarray) -> float:
        pooled = pool({2: x.astype("f4")}, roi, image, (16, 20), 2, 2, mode)
        return float((pooled * upstream).sum())

    variable = tf.Variable(features)
    with tf.GradientTape() as tape:
        pooled = multilevel_roi_align({2: variable}, roi, image, (16, 20), 2, 2, mode)
        loss = tf.reduce_sum(pooled * upstream)
    gradient = to_numpy(tf.convert_to_tensor(tape.gradient(loss, variable)))
    expected = reference.numeric_gradient(total, features, step=0.5)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def crowded_gradient(pool: Callable, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of a small map under 600 regions, twice."""
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 128, (600, 2, 2))
    rois = np.concatenate([corners.min(1), corners.max(1)], 1).astype("f4")
    upstream = tf.constant(rng.normal(0.5, 1, (600, 7, 7, 16)).astype("f4"))
    features = tf.zeros((1, 32, 32, 16), dtype)

    def run() -> np.ndarray:
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = multilevel_roi_align(
                {2: features}, rois, np.zeros(600, "i4"), (128, 128), 7
            )
            loss = tf.reduce_sum(tf.cast(pooled, "float32") * upstream)
        return to_numpy(tf.cast(tape.gradient(loss, features), "float32"))

    return run(), run()


def test_gradient_repeats_to_the_last_bit(pool: Callable) -> None:
    """That of `tf.image.crop_and_resize` loses terms where threads meet in a cell."""
    first, second = crowded_gradient(pool, "float32")
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("bins", "ratio"), [(7, 2), (2**14, 2), (2**20, 2), (2**6, 0)])
def test_products_in_parts_of_any_size(
    bins: int, ratio: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More parts than one, the last one shorter: equal to the gathers."""
    rng = np.random.default_rng(5)
    corners = rng.uniform(0, 128, (9, 2, 2))
    rois = np.concatenate([corners.min(1), corners.max(1)], 1).astype("f4")
    upstream = rng.normal(0.5, 1, (9, 7, 7, 3)).astype("f4")
    features = tf.constant(rng.normal(0, 1, (1, 32, 32, 3)).astype("f4"))

    def value_and_gradient() -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = multilevel_roi_align(
                {2: features}, rois, np.zeros(9, "i4"), (128, 128), 7, ratio
            )
            loss = tf.reduce_sum(pooled * upstream)
        return pooled, tape.gradient(loss, features)

    monkeypatch.setattr("kvision.ops.roi._BINS_OF_A_PART", bins)
    by_gathers = tf.function(value_and_gradient, jit_compile=True)()
    for ours, theirs in zip(value_and_gradient(), by_gathers, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_gradient_is_summed_in_float32(pool: Callable) -> None:
    """A sum of hundreds of terms in bfloat16 stops growing."""
    exact, _ = crowded_gradient(pool, "float32")
    half, _ = crowded_gradient(pool, "bfloat16")
    assert np.abs(half - exact).max() < 0.005 * np.abs(exact).max()


def test_no_gradient_flows_into_regions(pool: Callable) -> None:
    rois = tf.Variable(ROIS[:2])
    with tf.GradientTape() as tape:
        pooled = multilevel_roi_align(
            pyramid(range(2, 4)), rois, IMAGES[:2], IMAGE_SIZE, 3
        )
        loss = tf.reduce_sum(pooled)
    assert tape.gradient(loss, rois) is None


def test_regions_keep_their_order_over_levels(pool: Callable) -> None:
    """A map that holds its level: each region must show the level of its size."""
    features = {
        level: np.full((1, 512 >> level, 512 >> level, 1), level, np.float32)
        for level in range(2, 6)
    }
    sides = [500, 20, 300, 120, 40, 230, 450, 113]
    rois = np.array([[0, 0, side, side] for side in sides], np.float32)
    pooled = pool(features, rois, np.zeros(8, np.int32), (512, 512), 2)
    expected = [5, 2, 4, 3, 2, 4, 5, 3]
    np.testing.assert_allclose(pooled[:, 0, 0, 0], expected, rtol=1e-6)


def test_images_are_told_apart(pool: Callable) -> None:
    index = np.arange(3, dtype=np.float32)[:, None, None, None]
    features = {2: np.tile(index, (1, 8, 8, 1))}
    rois = np.array([[4, 4, 20, 20]] * 4, np.float32)
    pooled = pool(features, rois, np.array([2, 0, 1, 2], np.int32), (32, 32), 2)
    np.testing.assert_allclose(pooled[:, 0, 0, 0], [2, 0, 1, 2])


def test_half_precision_features_keep_exact_coordinates(pool: Callable) -> None:
    """Boxes of hundreds of pixels would be off by whole cells in bfloat16."""
    ramp = np.tile(np.arange(128, dtype=np.float32), (128, 1))[None, :, :, None]
    rois = np.array([[401, 401, 411, 411]], np.float32)
    features = {2: tf.cast(ramp, "bfloat16")}
    result = multilevel_roi_align(features, rois, np.zeros(1, "i4"), (512, 512), 1, 1)
    assert result.dtype == tf.bfloat16
    assert float(tf.cast(result[0, 0, 0, 0], "float32")) == pytest.approx(
        101.5, abs=0.3
    )


def test_levels_by_hand() -> None:
    """224 px is level 4 and every halving one less; empty boxes the finest."""
    sides = np.array([0, 1, 55, 56, 111.9, 112, 223.9, 224, 447.9, 448, 5000])
    rois = np.stack([sides * 0, sides * 0, sides, sides], 1).astype("f4")
    levels = assert_modes_agree(lambda r: assign_levels(r, 2, 5), rois)
    assert levels.tolist() == [2, 2, 2, 2, 2, 3, 3, 4, 4, 5, 5]
    expected = [reference.roi_level(roi, 1, 7) for roi in rois]
    assert to_numpy(assign_levels(rois, 1, 7)).tolist() == expected


def test_level_depends_on_the_area_not_on_a_side() -> None:
    rois = np.array([[0, 0, 448, 28], [0, 0, 28, 448]], np.float32)  # 112 squared
    assert to_numpy(assign_levels(rois, 2, 5)).tolist() == [3, 3]


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mode must be one of .*'exact'"):
        multilevel_roi_align(
            pyramid(range(2, 3)), ROIS, IMAGES, IMAGE_SIZE, 7, 2, "exact"
        )
