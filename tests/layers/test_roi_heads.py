"""Pooling and heads."""

import keras
import numpy as np
import pytest

from kvision import layers
from tests.ops.modes import to_numpy

RNG = np.random.default_rng(0)


def features_and_rois() -> tuple[dict[str, np.ndarray], np.ndarray]:
    features = {
        "P2": RNG.normal(size=(2, 16, 24, 3)).astype(np.float32),
        "P3": RNG.normal(size=(2, 8, 12, 3)).astype(np.float32),
    }
    corners = RNG.uniform(0, 40, (2, 5, 2))
    rois = np.concatenate([corners, corners + RNG.uniform(4, 50, (2, 5, 2))], -1)
    return features, rois.astype(np.float32)


def test_listed_regions_equal_batched_ones() -> None:
    features, rois = features_and_rois()
    layer = layers.ROIAlign((64, 96), 4, canonical_level=3, canonical_size=30.0)
    batched = to_numpy(layer(features, rois))
    order = RNG.permutation(10)
    images = np.repeat(np.arange(2), 5)[order].astype(np.int32)
    listed = to_numpy(layer(features, rois.reshape(-1, 4)[order], images))
    assert batched.shape == (2, 5, 4, 4, 3)
    expected = batched.reshape(10, 4, 4, 3)[order]
    np.testing.assert_allclose(listed, expected, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_boxes_keep_their_precision_in_mixed_policies(policy: str) -> None:
    """On the ramp f = x / 16 the box at 1001.3 is far from 1000, its bfloat16 value."""
    ramp = np.tile(np.arange(128, dtype=np.float32) / 16, (4, 1))[None, :, :, None]
    rois = np.float32([[[1001.3, 4, 1005.3, 8]]])
    features = {"P3": ramp}  # 8 pixels a cell
    results = [
        to_numpy(layers.ROIAlign((32, 1024), 2, dtype=dtype)(features, rois))
        for dtype in ("float32", policy)
    ]
    assert results[1].dtype.name == policy[6:]
    # A pixel is 1/128 of the ramp; rounding of values near 8 is up to 1/64.
    np.testing.assert_allclose(results[1].astype(float), results[0], atol=1 / 64)
    values = results[0][0, 0, 0, :, 0] * 16 * 8
    np.testing.assert_allclose(values, [1003.3, 1007.3], atol=1e-2)


def test_unknown_mode() -> None:
    with pytest.raises(
        ValueError, match=r"mode must be one of .* Received: mode='max'"
    ):
        layers.ROIAlign((64, 64), mode="max")


def test_box_head_shapes_and_parameters() -> None:
    head = layers.BoxHead(num_classes=5, hidden_dim=16, num_convs=1, conv_channels=6)
    class_logits, box_deltas = head(np.zeros((2, 3, 7, 7, 4), np.float32))
    assert class_logits.shape == (2, 3, 6)
    assert box_deltas.shape == (2, 3, 5, 4)
    conv, hidden = (9 * 4 + 1) * 6, (7 * 7 * 6 + 1) * 16 + 17 * 16
    assert head.count_params() == conv + hidden + 17 * 6 + 17 * 20


def test_box_head_treats_regions_alike() -> None:
    """Each region by itself: batch and order do not matter."""
    head = layers.BoxHead(num_classes=2, hidden_dim=8)
    pooled = RNG.normal(size=(2, 4, 3, 3, 5)).astype(np.float32)
    logits, deltas = to_numpy(head(pooled))
    listed = pooled.reshape(1, 8, 3, 3, 5)[:, ::-1]
    listed_logits, listed_deltas = to_numpy(head(listed))
    np.testing.assert_allclose(
        listed_logits[0, ::-1].reshape(logits.shape), logits, atol=1e-6
    )
    np.testing.assert_allclose(
        listed_deltas[0, ::-1].reshape(deltas.shape), deltas, atol=1e-6
    )


def test_initial_logits_are_near_zero() -> None:
    """So that the first losses are log(K + 1) and log 2."""
    pooled = np.abs(RNG.normal(size=(2, 8, 7, 7, 16))).astype(np.float32)
    class_logits, box_deltas = to_numpy(layers.BoxHead(4, hidden_dim=64)(pooled))
    assert 1e-4 < class_logits.std() < 0.2
    assert 1e-5 < box_deltas.std() < 0.02
    labels = np.zeros((2, 8), np.int32)
    assert np.abs(to_numpy(layers.MaskHead(4, channels=16)(pooled, labels))).max() < 0.1


def test_mask_head_is_a_transposed_convolution_and_a_1x1_convolution() -> None:
    """The paper's form with the same weights: all classes first, one chosen after."""
    num_classes, channels = 3, 6
    pooled = RNG.normal(size=(2, 5, 4, 4, 8)).astype(np.float32)
    labels = RNG.integers(0, num_classes, (2, 5)).astype(np.int32)
    head = layers.MaskHead(num_classes, channels, num_convs=2)
    head(pooled, labels)
    head.set_weights([RNG.normal(size=w.shape) * 0.3 for w in head.weights])
    # The transposed convolution has one bias a channel, shared by its four cells.
    bias = RNG.normal(size=channels).astype(np.float32)
    head.enlarge.bias.assign(np.tile(bias, 4))
    got = to_numpy(head(pooled, labels))

    x = pooled.reshape(10, 4, 4, 8)
    for conv in head.convs:
        x = conv(x)
    enlarge = keras.layers.Conv2DTranspose(channels, 2, 2, activation="relu")
    enlarge.build(x.shape)
    kernel = head.enlarge.get_weights()[0].reshape(channels, 2, 2, channels)
    enlarge.set_weights([kernel.transpose(1, 2, 3, 0), bias])
    of_classes = keras.layers.Conv2D(num_classes, 1)
    of_classes.build((None, 8, 8, channels))
    kernel = np.array(head.class_kernel).T[None, None]
    of_classes.set_weights([kernel, np.array(head.class_bias)])
    maps = to_numpy(of_classes(enlarge(x)))
    chosen = [maps[i, :, :, label] for i, label in enumerate(labels.reshape(-1))]
    np.testing.assert_allclose(got, np.reshape(chosen, (2, 5, 8, 8)), atol=1e-4)


def test_mask_head_clips_labels_of_padding() -> None:
    head = layers.MaskHead(num_classes=2, channels=4, num_convs=0)
    pooled = np.tile(RNG.normal(size=(1, 1, 2, 2, 3)), (1, 4, 1, 1, 1))
    head(pooled, np.int32([[-1, 0, 1, 7]]))
    head.set_weights([RNG.normal(size=w.shape) for w in head.weights])
    logits = to_numpy(head(pooled, np.int32([[-1, 0, 1, 7]])))
    np.testing.assert_array_equal(logits[0, 0], logits[0, 1])
    np.testing.assert_array_equal(logits[0, 2], logits[0, 3])
    assert np.abs(logits[0, 1] - logits[0, 2]).max() > 0.1
