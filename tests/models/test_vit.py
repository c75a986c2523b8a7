"""Plain Vision Transformers and their relatives as Keras models."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision import models
from kvision.models.vit import VARIANTS

RNG = np.random.default_rng(0)
SMALL: dict[str, Any] = {"num_classes": 5, "image_size": (32, 48)}

# Every way of the family to differ, at a small size.
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": ("vit", "Ti/16", {}),
    "dense patches": ("vit", "Ti/16", {"patch_form": "dense", "patch_bias": False}),
    "registers": ("vit", "Ti/16", {"num_register_tokens": 4}),
    "positions first": ("vit", "Ti/16", {"prefix_positions": False}),
    "relative": ("vit", "Ti/16", {"positions": "relative"}),
    "convolution": ("vit", "Ti/16", {"positions": "convolution"}),
    "sincos_1d": ("vit", "Ti/16", {"positions": "sincos_1d"}),
    "sincos_2d": ("vit", "Ti/16", {"positions": "sincos_2d"}),
    "average": (
        "vit",
        "Ti/16",
        {"pooling": "average", "class_token": False, "norm_after_pooling": True},
    ),
    "attention": ("vit", "Ti/16", {"pooling": "attention", "class_token": False}),
    "qk norm": ("vit", "Ti/16", {"qk_norm": True, "layer_scale": 0.1}),
    "swiglu": ("vit", "Ti/16", {"activation": "swiglu", "pre_norm": True}),
    "representation": ("vit", "Ti/16", {"representation_dim": 16}),
    "deit": ("deit", "Ti/16", {}),
    "distilled": ("deit", "Ti/16", {"distilled": True}),
    "deit3": ("deit3", "Ti/16", {}),
    "early convolutions": ("conv_vit", "Ti/16", {}),
    "patchify": ("conv_vit", "Ti/16", {"stem": "patchify"}),
    "hybrid": ("hybrid_vit", "R+Ti/16", {}),
}


def build(name: str, **more: Any) -> keras.Model:
    """Build a case with weights that let every part matter."""
    keras.utils.set_random_seed(1)
    function, variant, arguments = CASES[name]
    model = getattr(models, function)(variant, **{**SMALL, **arguments, **more})
    for weight in model.trainable_weights:
        if weight.path.endswith(("bias", "beta", "kernel")) and not np.any(weight):
            weight.assign(RNG.normal(size=weight.shape) * 0.1)
        if weight.path.endswith("gamma") and "layer_scale" in weight.path:
            weight.assign(weight * 0 + 0.5)  # 1e-6 would hide the blocks
    return model


def images(number: int = 2, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    return RNG.integers(0, 256, (number, *size, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", CASES)
def test_modes_agree(name: str, tmp_path: Path) -> None:
    model, batch = build(name), images()
    eager = model(batch).numpy()
    assert eager.shape == (2, 5)
    assert eager.dtype == np.float32
    assert np.abs(eager[0] - eager[1]).max() > 1e-4, "the image makes no difference"
    compiled = tf.function(lambda x: model(x, training=False), jit_compile=True)
    np.testing.assert_allclose(
        compiled(tf.constant(batch)), eager, atol=1e-4 * np.abs(eager).max()
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(batch), eager)


def test_conv_and_dense_patches_agree() -> None:
    one, other = build("vit"), build("vit", patch_form="dense")
    other.set_weights(one.get_weights())
    batch = images()
    np.testing.assert_allclose(one(batch), other(batch), atol=1e-5)


@pytest.mark.parametrize("name", ["vit", "distilled", "registers", "relative"])
def test_features(name: str) -> None:
    model = build(name, features=True)
    outputs = model(images())
    prefix = {"distilled": 2, "registers": 5}.get(name, 1)
    assert outputs["block_11"].shape == (2, prefix + 2 * 3, 192)
    assert outputs["grid"].shape == (2, 2, 3, 192)
    np.testing.assert_array_equal(
        outputs["block_3_grid"].numpy().reshape(2, 6, 192),
        outputs["block_3"][:, prefix:],
    )


def test_features_are_those_of_the_classifier() -> None:
    classifier, backbone = build("vit"), build("vit", features=True)
    for layer in backbone.layers:
        if layer.weights:
            layer.set_weights(classifier.get_layer(layer.name).get_weights())
    batch = images()
    logits = classifier.get_layer("head")(backbone(batch)["tokens"][:, 0])
    np.testing.assert_allclose(logits, classifier(batch), atol=1e-5)


@pytest.mark.parametrize("size", [(32, 48), (37, 50), (16, 16), (96, 32)])
def test_any_size(size: tuple[int, int]) -> None:
    model = build("vit", image_size=size)
    assert model(images(1, size)).shape == (1, 5)


def test_no_head() -> None:
    assert build("vit", num_classes=0).output_shape == (None, 192)


def test_class_names() -> None:
    model = models.vit("Ti/16", class_names=["cat", "dog"], image_size=(32, 32))
    assert model.output_shape == (None, 2)
    assert model.get_layer("head").class_names == ["cat", "dog"]
    with pytest.raises(ValueError, match="3 different names"):
        models.vit("Ti/16", num_classes=3, class_names=["cat", "dog"])


def test_small_variants() -> None:
    # Hassani et al. 2021, table 1: ViT-Lite-7/4 and -6/4 for CIFAR, without biases of
    # queries, keys and values.
    for variant, millions in {"Lite-7/4": 3.717, "Lite-6/4": 3.191}.items():
        model = models.vit(variant, image_size=(32, 32), num_classes=10)
        biases = 3 * 256 * int(variant[5])
        assert round((model.count_params() - biases) / 1e6, 3) == millions


def test_grey_images() -> None:
    model = models.deit("Ti/16", image_size=(32, 32), num_channels=1, num_classes=2)
    assert model(np.zeros((1, 32, 32, 1), np.uint8)).shape == (1, 2)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(dtype: str) -> None:
    model, half = build("distilled"), build("distilled", dtype=dtype)
    half.set_weights(model.get_weights())
    batch = images()
    expected = model(batch).numpy()
    got = half(batch)
    assert got.dtype == "float32"
    np.testing.assert_allclose(got, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_fits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is learned by heart, through every weight."""
    monkeypatch.setitem(VARIANTS, "Ti", VARIANTS["Ti"]._replace(depth=3))
    keras.utils.set_random_seed(0)
    model = build(name, dropout=0.05, drop_path=0.05)
    before = model.get_weights()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss, jit_compile=False)
    batch, labels = images(4), np.arange(4)
    history = model.fit(batch, labels, epochs=25, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]
    moved = [np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert all(moved), [
        w.path for w, m in zip(model.weights, moved, strict=True) if not m
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "B16"}, 'such as "B/16"'),
        ({"variant": "X/16"}, "Ti, S, M, B"),
        ({"variant": "B/0"}, 'such as "B/16"'),
        ({"pooling": "max"}, "'token', 'average', 'attention'"),
        ({"positions": "rotary"}, "positions must be"),
        ({"class_token": False}, "needs a class token"),
        ({"drop_path_rule": "cosine"}, "'linear', 'constant'"),
        ({"activation": "tanh"}, "activation must be"),
        ({"image_size": (0, 32)}, "image_size must be"),
        ({"resize": "squash"}, "resize must be"),
        ({"patch_dropout": 0.5, "positions": "relative"}, "leaves holes"),
        ({"position_interpolation": "nearest"}, "interpolation must be"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.vit(**{"variant": "Ti/16", "image_size": (32, 32), **arguments})


def test_unknown_argument() -> None:
    with pytest.raises(TypeError, match="mlp_ratio"):
        models.vit("Ti/16", mlp_ratio=4)


def test_stems_refuse_what_they_cannot_make() -> None:
    with pytest.raises(ValueError, match="square patches"):
        models.conv_vit("Ti/14")
    with pytest.raises(ValueError, match="early"):
        models.conv_vit("Ti/16", stem="late")
    with pytest.raises(ValueError, match=r"R50\+L/32"):
        models.hybrid_vit("B/16")
