"""ResNet in torchvision's layout."""

import math

import keras
import numpy as np
import pytest

from kvision import layers
from kvision.models import resnet

# torchvision's resnet50 and resnet101 have 25,557,032 and 44,549,160 parameters, of
# which the classifier has 2048 * 1000 + 1000.
PARAMETERS = {"resnet50": 23_508_032, "resnet101": 42_500_160}


def count(weights: list) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


@pytest.fixture(scope="module")
def any_size() -> keras.Model:
    return resnet("resnet50")


@pytest.mark.parametrize("variant", PARAMETERS)
def test_number_of_parameters_is_torchvisions(variant: str) -> None:
    model = resnet(variant, (64, 64))
    assert count(model.trainable_weights) == PARAMETERS[variant]


def test_frozen_batch_norm_leaves_only_the_kernels(any_size: keras.Model) -> None:
    usual = any_size
    frozen = resnet("resnet50", (64, 64), freeze_batch_norm=True)
    kernels = [w for w in usual.trainable_weights if w.name == "kernel"]
    assert count(frozen.trainable_weights) == count(kernels)
    assert frozen.count_params() == usual.count_params()
    norms = [x for x in frozen.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert norms == []


@pytest.mark.parametrize("image_size", [(64, 96), (75, 101), (65, 127)])
def test_strides(any_size: keras.Model, image_size: tuple[int, int]) -> None:
    """Sizes are halved with rounding up, also those of odd images."""
    outputs = any_size.compute_output_spec(keras.KerasTensor((None, *image_size, 3)))
    assert {name: tensor.shape for name, tensor in outputs.items()} == {
        f"C{level}": (
            None,
            *(math.ceil(side / 2**level) for side in image_size),
            64 * 2**level,
        )
        for level in range(2, 6)
    }


def test_any_size(any_size: keras.Model) -> None:
    outputs = any_size(np.zeros((1, 70, 33, 3), np.float32))
    assert outputs["C3"].shape == (1, 9, 5, 512)
    assert outputs["C5"].shape == (1, 3, 2, 2048)


def test_arguments_reach_the_layers() -> None:
    model = resnet(
        "resnet50",
        (64, 64),
        num_channels=5,
        freeze_batch_norm=True,
        batch_norm_epsilon=0.125,
        dtype="mixed_bfloat16",
    )
    norms = [x for x in model.layers if isinstance(x, layers.FrozenBatchNormalization)]
    assert len(norms) == 53
    assert {norm.epsilon for norm in norms} == {0.125}
    policies = {x.dtype_policy.name for x in model.layers if x.weights}
    assert policies == {"mixed_bfloat16"}
    assert model.input.shape == (None, 64, 64, 5)


def test_strided_layers_see_the_pixels_that_torchvisions_see(
    any_size: keras.Model,
) -> None:
    """The 7x7 kernel at (0, 0) begins at pixel -3: padding is symmetric."""
    model = any_size
    conv = model.get_layer("conv1")
    before = conv.get_weights()
    kernel = np.zeros(conv.kernel.shape, np.float32)
    kernel[3, 3] = 1  # its centre
    conv.kernel.assign(kernel)
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    until_conv = keras.Model(model.input, conv.output)
    got = keras.ops.convert_to_numpy(until_conv(image))
    expected = np.repeat(image[:, ::2, ::2].sum(-1, keepdims=True), 64, -1)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    conv.set_weights(before)


def test_unknown_variant() -> None:
    with pytest.raises(ValueError, match=r"resnet101.*resnet50.*variant='resnet18'"):
        resnet("resnet18")
