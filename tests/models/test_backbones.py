"""Backbones by name and as objects; stages and normalisation that stay fixed."""

import inspect
from pathlib import Path

import keras
import numpy as np
import pytest

from kvision import layers
from kvision.models.backbones import build_backbone, freeze_stages, normalization_of
from tests.models.tiny import tiny_backbone
from tests.ops.modes import to_numpy

IMAGE_SIZE = (96, 128)

# Every keras.applications model and whether it has maps of strides 4, 8, 16 and 32.
WITH_FOUR_STRIDES = [
    *(f"convnext_{size}" for size in ("tiny", "small", "base", "large", "xlarge")),
    *(f"densenet{depth}" for depth in (121, 169, 201)),
    *(f"efficientnet_b{number}" for number in range(8)),
    *(f"efficientnet_v2_b{number}" for number in range(4)),
    *(f"efficientnet_v2_{size}" for size in "sml"),
    "mobilenet",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet50_v2",
    "resnet101_v2",
    "resnet152",
    "resnet152_v2",
    "nasnet_large",
    "nasnet_mobile",
    "vgg16",
    "vgg19",
]
WITHOUT = ["inception_v3", "inception_resnet_v2", "xception"]


def spec(backbone: keras.Model) -> dict[str, tuple]:
    return {name: tensor.shape[1:] for name, tensor in backbone.output.items()}


def check_strides(backbone: keras.Model, image_size: tuple[int, int]) -> None:
    assert list(backbone.output) == ["C2", "C3", "C4", "C5"]
    for name, shape in spec(backbone).items():
        stride = 2 ** int(name[1:])
        assert shape[:2] == tuple(-(-side // stride) for side in image_size)


def test_mobilenet_v2_gives_the_deepest_map_of_each_stride() -> None:
    backbone = build_backbone("mobilenet_v2", IMAGE_SIZE)
    sources = {n: t._keras_history.operation.name for n, t in backbone.output.items()}
    assert sources == {
        "C2": "block_3_expand_relu",
        "C3": "block_6_expand_relu",
        "C4": "block_13_expand_relu",
        "C5": "out_relu",
    }
    assert spec(backbone) == {
        "C2": (24, 32, 144),
        "C3": (12, 16, 192),
        "C4": (6, 8, 576),
        "C5": (3, 4, 1280),
    }


def test_map_that_a_shortcut_bypasses_is_not_taken() -> None:
    """Later maps of the same stride are inside the strided block of a ResNetV2."""
    backbone = build_backbone("resnet50_v2", IMAGE_SIZE)
    sources = [t._keras_history.operation.name for t in backbone.output.values()]
    assert sources == [
        "conv2_block2_out",
        "conv3_block3_out",
        "conv4_block5_out",
        "post_relu",
    ]


def test_odd_image_sizes() -> None:
    check_strides(build_backbone("mobilenet_v2", (75, 101)), (75, 101))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "MobileNetV2"])
def test_names(name: str) -> None:
    check_strides(build_backbone(name, IMAGE_SIZE), IMAGE_SIZE)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_FOUR_STRIDES)
def test_every_application_with_four_strides(name: str) -> None:
    backbone = build_backbone(name, IMAGE_SIZE, freeze_batch_norm=True)
    check_strides(backbone, IMAGE_SIZE)
    normalization_of(name)
    keras.backend.clear_session()


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT)
def test_application_without_four_strides(name: str) -> None:
    with pytest.raises(ValueError, match=r"has no feature map of stride \["):
        build_backbone(name, IMAGE_SIZE)


@pytest.mark.parametrize(
    ("name", "close"),
    [("mobilnet_v2", "'mobilenetv2'"), ("resnet-50", "'resnet50'"), ("vit", None)],
)
def test_unknown_name(name: str, close: str | None) -> None:
    with pytest.raises(ValueError, match=f"backbone='{name}'") as caught:
        build_backbone(name, IMAGE_SIZE)
    assert ("Did you mean" in str(caught.value)) == (close is not None)
    assert close is None or close in str(caught.value)


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2"])
def test_weights_file_must_exist(name: str) -> None:
    with pytest.raises(ValueError, match=r"No such file: no/such\.weights\.h5"):
        build_backbone(name, IMAGE_SIZE, weights="no/such.weights.h5")


def test_weights_of_resnet_cannot_be_downloaded() -> None:
    with pytest.raises(ValueError, match="cannot be downloaded yet"):
        build_backbone("resnet50", IMAGE_SIZE, weights="imagenet")


def test_pretrained_weights_are_for_three_channels() -> None:
    with pytest.raises(ValueError, match=r"for 3 channels\. Received: num_channels=4"):
        build_backbone("mobilenet_v2", IMAGE_SIZE, 4, weights="imagenet")


@pytest.mark.parametrize("num_channels", [1, 5])
def test_other_numbers_of_channels(num_channels: int) -> None:
    """Also of a family that rescales three channels inside."""
    for name in ("mobilenet_v2", "mobilenet_v3_small"):
        backbone = build_backbone(name, (64, 64), num_channels)
        maps = backbone(np.zeros((1, 64, 64, num_channels), np.float32))
        assert maps["C5"].shape[1:3] == (2, 2)


def test_weights_of_resnet_fit_with_frozen_batch_norm(tmp_path: Path) -> None:
    source = build_backbone("resnet50", (64, 64))
    source.save_weights(tmp_path / "r50.weights.h5")
    path = str(tmp_path / "r50.weights.h5")
    loaded = build_backbone("resnet50", (64, 64), weights=path, freeze_batch_norm=True)
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    expected, got = to_numpy(source(image, training=False)), to_numpy(loaded(image))
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=1e-3 * np.abs(value).max())


def test_model_object_with_outputs_of_that_name_is_taken_as_it_is() -> None:
    model = tiny_backbone()
    assert build_backbone(model, (64, 96)) is model


def test_model_object_without_names() -> None:
    model = tiny_backbone()
    plain = keras.Model(model.input, model.output["C5"])
    backbone = build_backbone(plain, (64, 96))
    check_strides(backbone, (64, 96))
    sources = [t._keras_history.operation.name for t in backbone.output.values()]
    assert sources == ["relu2", "relu3", "relu4", "relu5"]


def test_model_object_with_pyramid_outputs() -> None:
    """As those of KerasHub, which has P1 to P5 and may have one input in a list."""
    model = tiny_backbone()
    plain = keras.Model([model.input], model.output["C5"])
    plain.pyramid_outputs = {
        f"P{level}": model.get_layer(f"bn{level}").output for level in range(1, 6)
    }
    backbone = build_backbone(plain, (64, 96))
    sources = [t._keras_history.operation.name for t in backbone.output.values()]
    assert sources == ["bn2", "bn3", "bn4", "bn5"]


def test_model_object_with_more_outputs() -> None:
    model = tiny_backbone()
    outputs = {
        "C1": model.get_layer("relu1").output,
        **model.output,
        "extra": model.input,
    }
    backbone = build_backbone(keras.Model(model.input, outputs), (64, 96))
    check_strides(backbone, (64, 96))


def test_model_object_without_the_strides() -> None:
    images = keras.Input((64, 96, 3))
    shallow = keras.Model(images, keras.layers.Conv2D(4, 3, 4, "same")(images))
    with pytest.raises(ValueError, match=r"no feature map of stride \[8, 16, 32\]"):
        build_backbone(shallow, (64, 96))


def test_model_object_brings_its_own_weights() -> None:
    with pytest.raises(ValueError, match="model object brings its own"):
        build_backbone(tiny_backbone(), (64, 96), weights="imagenet")


def untrainable(backbone: keras.Model) -> list[str]:
    return [x.name for x in backbone.layers if x.weights and not x.trainable]


@pytest.mark.parametrize("count", range(6))
def test_frozen_stages_of_a_model_object(count: int) -> None:
    backbone = tiny_backbone()
    freeze_stages(backbone, count)
    expected = [f"{kind}{i}" for i in range(1, count + 1) for kind in ("conv", "bn")]
    assert untrainable(backbone) == expected


def test_frozen_stages_of_resnet() -> None:
    backbone = build_backbone("resnet50", (64, 64))
    for count in range(6):  # each freezes more than the one before
        freeze_stages(backbone, count)
        frozen = untrainable(backbone)
        stages = {name.split("_")[0] for name in frozen}
        stem = {"conv1", "bn1"} if count else set()
        assert stages == stem | {f"layer{i}" for i in range(1, count)}
        # All of each stage.
        for layer in backbone.layers:
            if layer.weights and layer.name.split("_")[0] in stages:
                assert layer.name in frozen


def test_frozen_stages_of_mobilenet_v2() -> None:
    """What C2 depends on, and nothing else."""
    backbone = build_backbone("mobilenet_v2", (64, 64))
    freeze_stages(backbone, 2)
    frozen = untrainable(backbone)
    assert frozen[0] == "Conv1"
    assert frozen[-2:] == ["block_3_expand", "block_3_expand_BN"]
    order = [x.name for x in backbone.layers if x.weights]
    assert frozen == order[: len(frozen)]


@pytest.mark.parametrize("count", [-1, 6])
def test_number_of_frozen_stages(count: int) -> None:
    with pytest.raises(ValueError, match=f"must be in 0..5. Received: {count}"):
        freeze_stages(tiny_backbone(), count)


def test_freezing_batch_norm_changes_no_output(shared_data: Path) -> None:
    """With real statistics; the trainable network gives the same in inference."""
    path = str(shared_data / "mobilenet_v2/mobilenet_v2_1.0_imagenet_notop.weights.h5")
    usual = build_backbone("mobilenet_v2", (96, 96), weights=path)
    frozen = build_backbone(
        "mobilenet_v2", (96, 96), weights=path, freeze_batch_norm=True
    )
    assert not any(
        isinstance(x, keras.layers.BatchNormalization) for x in frozen.layers
    )
    image = np.random.default_rng(0).uniform(-1, 1, (1, 96, 96, 3)).astype(np.float32)
    expected = to_numpy(usual(image, training=False))
    got = to_numpy(frozen(image, training=True))
    for name, value in expected.items():
        assert value.max() > 1, "the network does something"
        np.testing.assert_allclose(got[name], value, atol=1e-4 * value.max())


def test_freezing_batch_norm_of_a_model_object() -> None:
    model = tiny_backbone()
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.weights])
    frozen = build_backbone(model, (64, 96), freeze_batch_norm=True)
    assert (
        sum(isinstance(x, layers.FrozenBatchNormalization) for x in frozen.layers) == 5
    )
    image = rng.normal(size=(1, 64, 96, 3)).astype(np.float32)
    expected, got = to_numpy(model(image)), to_numpy(frozen(image))
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=1e-4 * value.max())


def families() -> list[tuple[str, object]]:
    """Every model of keras.applications with the preprocessing of its module."""
    return [
        (name, module)
        for module in vars(keras.applications).values()
        if inspect.ismodule(module) and hasattr(module, "preprocess_input")
        for name in vars(module)
        if name[0].isupper()
    ]


@pytest.mark.parametrize(("name", "module"), families(), ids=lambda x: str(x)[:20])
def test_normalization_is_that_of_the_family(name: str, module: object) -> None:
    if name.lower() in ("resnet50", "resnet101"):
        pytest.skip("ours, in torchvision's layout")
    image = np.random.default_rng(0).uniform(0, 255, (1, 4, 5, 3)).astype(np.float32)
    (mean, std), reverse_channels = normalization_of(name)
    got = to_numpy(layers.ImageNormalization(mean, std, reverse_channels)(image))
    expected = module.preprocess_input(image.copy())
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_normalization_of_resnet_is_torchvisions() -> None:
    """(x / 255 - mean) / std with its numbers."""
    (mean, std), reverse_channels = normalization_of("resnet50")
    assert not reverse_channels
    np.testing.assert_allclose(np.array(mean) / 255, (0.485, 0.456, 0.406))
    np.testing.assert_allclose(np.array(std) / 255, (0.229, 0.224, 0.225))


def test_normalization_of_other_numbers_of_channels() -> None:
    (mean, std), reverse_channels = normalization_of("vgg16", num_channels=4)
    got = layers.ImageNormalization(mean, std, reverse_channels)(
        np.float32([[[[0, 127.5, 255, 255]]]])
    )
    np.testing.assert_allclose(to_numpy(got), [[[[-1, 0, 1, 1]]]], atol=1e-6)


def test_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(**kwargs: object) -> None:
        raise Exception("URL fetch failure on https://example.com/w.h5: None")

    monkeypatch.setattr(keras.applications, "MobileNetV2", offline)
    with pytest.raises(
        ValueError, match=r"'mobilenet_v2' could not be downloaded.*w.h5"
    ):
        build_backbone("mobilenet_v2", IMAGE_SIZE, weights="imagenet")
