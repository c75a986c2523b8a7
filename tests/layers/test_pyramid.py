"""Feature pyramid and RPN: how cells and anchors are laid out."""

import keras
import numpy as np
import pytest

from kvision import layers
from tests.ops.modes import to_numpy


def with_identity_kernels(pyramid: layers.FeaturePyramid, features: dict) -> None:
    """Let every convolution pass its input through, so that sums remain."""
    pyramid.build({name: array.shape for name, array in features.items()})
    for conv in pyramid.laterals + pyramid.outputs:
        size, _, channels, _ = conv.kernel.shape
        kernel = np.zeros(conv.kernel.shape, np.float32)
        kernel[size // 2, size // 2] = np.eye(channels)
        conv.set_weights([kernel, np.zeros(channels, np.float32)])


def maps_of(image_size: tuple[int, int], channels: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        f"C{level}": rng.normal(
            size=(2, *(-(-side // 2**level) for side in image_size), channels)
        ).astype(np.float32)
        for level in range(2, 6)
    }


@pytest.mark.parametrize("image_size", [(64, 96), (75, 101), (65, 127), (33, 40)])
def test_each_level_is_the_sum_of_those_above_it(image_size: tuple[int, int]) -> None:
    features = maps_of(image_size)
    pyramid = layers.FeaturePyramid(2)
    with_identity_kernels(pyramid, features)
    outputs = to_numpy(pyramid(features))
    assert list(outputs) == ["P2", "P3", "P4", "P5", "P6"]

    expected = features["C5"]
    np.testing.assert_allclose(outputs["P5"], expected, rtol=1e-5)
    np.testing.assert_array_equal(outputs["P6"], outputs["P5"][:, ::2, ::2])
    for level in (4, 3, 2):
        finer = features[f"C{level}"]
        # The nearest coarse cell of each fine one, as torch's interpolate has it.
        rows, columns = (
            np.floor(np.arange(n) * m / n).astype(int)
            for n, m in zip(finer.shape[1:3], expected.shape[1:3], strict=True)
        )
        expected = finer + expected[:, rows][:, :, columns]
        np.testing.assert_allclose(outputs[f"P{level}"], expected, atol=1e-5)


def test_widths_of_the_backbone_may_differ() -> None:
    features = {
        f"C{level}": np.ones((1, 64 // 2**level, 64 // 2**level, 3 * level), np.float32)
        for level in range(2, 6)
    }
    outputs = layers.FeaturePyramid(channels=5)(features)
    assert {name: x.shape for name, x in outputs.items()} == {
        "P2": (1, 16, 16, 5),
        "P3": (1, 8, 8, 5),
        "P4": (1, 4, 4, 5),
        "P5": (1, 2, 2, 5),
        "P6": (1, 1, 1, 5),
    }


def test_initial_scale_is_that_of_torchvision() -> None:
    """kaiming_uniform with a=1: bounds sqrt(3 / fan_in)."""
    pyramid = layers.FeaturePyramid(64)
    pyramid.build({"C4": (None, 8, 8, 48), "C5": (None, 4, 4, 96)})
    for conv, fan_in in zip(
        pyramid.laterals + pyramid.outputs, (48, 96, 64 * 9, 64 * 9), strict=True
    ):
        kernel, bias = conv.get_weights()
        assert np.abs(kernel).max() == pytest.approx((3 / fan_in) ** 0.5, rel=0.01)
        assert not bias.any()


def test_rpn_outputs_are_in_the_order_of_the_anchors() -> None:
    """Cells carry their own corner: each output must belong to the anchor there."""
    image_size, aspect_ratios = (64, 96), (0.5, 1.0, 2.0)
    grids = {"P2": (16, 24), "P3": (8, 12)}
    features = {}
    for name, (height, width) in grids.items():
        stride = image_size[0] // height
        y, x = np.mgrid[:height, :width] * stride
        features[name] = np.stack([x, y], -1)[None].astype(np.float32)
    rpn = layers.RPN(num_anchors=3, num_convs=0)
    rpn.build({name: array.shape for name, array in features.items()})
    # Logits of anchor a: x + 1000 a. Deltas: (x, y, a, 7).
    kernel = np.zeros((1, 1, 2, 3), np.float32)
    kernel[0, 0, 0] = 1
    rpn.objectness.set_weights([kernel, np.float32([0, 1000, 2000])])
    kernel = np.zeros((1, 1, 2, 3, 4), np.float32)
    kernel[0, 0, 0, :, 0] = kernel[0, 0, 1, :, 1] = 1
    bias = np.float32([[0, 0, a, 7] for a in range(3)])
    rpn.deltas.set_weights([kernel.reshape(1, 1, 2, 12), bias.reshape(-1)])

    logits, deltas = to_numpy(rpn(features))
    anchors = to_numpy(layers.Anchors(image_size, (16, 32), aspect_ratios)(features))
    for name in grids:
        corners, sizes = anchors[name][:, :2], anchors[name][:, 2:]
        centre = (corners + sizes) / 2
        ratio = (sizes - corners)[:, 1] / (sizes - corners)[:, 0]
        which = np.argmin(np.abs(np.log(ratio[:, None] / np.array(aspect_ratios))), 1)
        np.testing.assert_allclose(logits[name][0], centre[:, 0] + 1000 * which)
        np.testing.assert_allclose(deltas[name][0, :, :2], centre)
        np.testing.assert_array_equal(deltas[name][0, :, 2], which)
        np.testing.assert_array_equal(deltas[name][0, :, 3], 7)


def test_rpn_shares_its_weights_between_levels() -> None:
    rpn = layers.RPN(num_anchors=2)
    shapes = {"P2": (None, 8, 8, 16), "P3": (None, 4, 4, 16)}
    rpn.build(shapes)
    # 3x3 of 16 to 16, 1x1 to 2 logits and to 8 deltas, with biases.
    assert rpn.count_params() == (9 * 16 + 1) * 16 + 17 * 2 + 17 * 8
    same = np.random.default_rng(0).normal(size=(2, 4, 4, 16)).astype(np.float32)
    logits, _ = to_numpy(rpn({"P2": same, "P3": same}))
    np.testing.assert_array_equal(logits["P2"], logits["P3"])


def test_strides_of_anchors_and_inclusive_ones() -> None:
    """Of P6 over 160 pixels: 53 pixels apart, or 64; without the last pixel."""
    maps = {"P6": keras.ops.zeros((1, 3, 3, 2))}
    for strides, step in ((None, 53), ((64,), 64)):
        anchors = layers.Anchors((160, 160), (32,), (1.0,), strides=strides)
        assert to_numpy(anchors(maps)["P6"])[1].tolist() == [
            step - 16,
            -16,
            step + 16,
            16,
        ]
    anchors = layers.Anchors((160, 160), (32,), (1.0,), strides=(64,), inclusive=True)
    expected = np.array([48, -16, 79, 15]) * 160 / 159
    np.testing.assert_allclose(to_numpy(anchors(maps)["P6"])[1], expected, rtol=1e-6)


def test_number_of_anchor_sizes_must_fit() -> None:
    anchors = layers.Anchors((64, 64), (32, 64))
    with pytest.raises(ValueError, match=r"3 levels .*sizes=\[\[32\], \[64\]\]"):
        anchors({f"P{i}": keras.ops.zeros((1, 4, 4, 2)) for i in (2, 3, 4)})
    anchors = layers.Anchors((64, 64), (32, 64), strides=(4, 8, 16))
    with pytest.raises(ValueError, match=r"2 levels .*strides=\[4, 8, 16\]"):
        anchors({f"P{i}": keras.ops.zeros((1, 4, 4, 2)) for i in (2, 3)})
