"""Vision Transformers with Google's weights against an independent NumPy one.

flax cannot be installed beside TensorFlow here: `numpy_vit.py` is its arithmetic, and
`google_seeded.py` its names and shapes, with weights that are made from the names.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest

import kvision as kv
from kvision.layers import PatchEmbedding
from kvision.models.hybrid_vit import GOOGLE
from kvision.models.vit import ViTSize, build_vit
from tests.ops.modes import to_numpy
from tests.parity import google_seeded as google
from tests.parity.compare import TOLERANCE, assert_equal, difference
from tests.parity.numpy_vit import Flax, Timm, vit
from tests.parity.seeded import images_for

SIZE = (48, 48)
# Width, depth, heads, width inside the MLP.
NUMBERS = (64, 3, 2, 128)


def small(image_size: tuple[int, int] = SIZE, **arguments: Any) -> keras.Model:
    stem = PatchEmbedding(64, 8, name="patch_embedding")
    arguments = {"num_classes": 10, "activation": "gelu_tanh", **arguments}
    return build_vit(ViTSize(*NUMBERS), stem, image_size=image_size, **arguments)


def old_file() -> google.Weights:
    """As the first were: positions of the class token, a layer before the head."""
    return google.weights_of(
        google.transformer(*NUMBERS, google.OLD)
        | google.embedding(8, 3, 64)
        | {"cls": (1, 1, 64), "Transformer/posembed_input/pos_embedding": (1, 37, 64)}
        | google.dense("pre_logits", 64, 64)
        | google.dense("head", 64, 10)
    )


def new_file(**more: google.Shape) -> google.Weights:
    """As big_vision writes them."""
    return google.weights_of(
        google.transformer(*NUMBERS, google.NEW)
        | google.embedding(8, 3, 64)
        | {"pos_embedding": (1, 36, 64)}
        | google.dense("head", 64, 10)
        | more
    )


def hybrid_file(stages: tuple[int, ...], numbers: Any, patch_size: int, cells: int):
    width = numbers[0]
    channels = 64 if not stages else 256 << (len(stages) - 1)
    positions = "Transformer/posembed_input/pos_embedding"
    return google.weights_of(
        google.resnet(stages)
        | google.transformer(*numbers, google.OLD)
        | google.embedding(patch_size, channels, width)
        | {"cls": (1, 1, width), positions: (1, 1 + cells, width)}
        | google.dense("head", width, 10)
    )


def pooling_file() -> google.Weights:
    return new_file(**google.pooling(64, 2, 128))


def hybrid(variant: str, image_size: tuple[int, int]) -> keras.Model:
    return kv.models.hybrid_vit(
        variant, num_classes=10, image_size=image_size, **GOOGLE
    )


Case = tuple[Callable[[], google.Weights], Callable[[], keras.Model]]
CASES: dict[str, Case] = {
    "old": (old_file, lambda: small(representation_dim=64)),
    "average": (new_file, lambda: small(class_token=False, pooling="average")),
    "token": (
        lambda: new_file(cls=(1, 1, 64)),
        lambda: small(prefix_positions=False),
    ),
    "pooling": (pooling_file, lambda: small(class_token=False, pooling="attention")),
    "stacked": (
        lambda: google.stacked(pooling_file()),
        lambda: small(class_token=False, pooling="attention"),
    ),
    "r_ti16": (
        lambda: hybrid_file((), (192, 12, 3, 768), 8, 24),
        lambda: hybrid("R+Ti/16", (128, 192)),
    ),
    "r26_s32": (
        lambda: hybrid_file((2, 2, 2, 2), (384, 12, 6, 1536), 1, 6),
        lambda: hybrid("R26+S/32", (64, 96)),
    ),
    "vit_b16": (
        lambda: google.weights_of(
            google.transformer(768, 12, 12, 3072, google.OLD)
            | google.embedding(16, 3, 768)
            | {"cls": (1, 1, 768)}
            | {"Transformer/posembed_input/pos_embedding": (1, 197, 768)}
            | google.dense("head", 768, 1000)
        ),
        lambda: kv.models.vit("B/16", activation="gelu_tanh"),
    ),
}
NAMES = [
    pytest.param(name, marks=pytest.mark.slow if name == "vit_b16" else ())
    for name in CASES
]


def num_heads(model: keras.Model) -> int:
    heads: int = model.get_layer("block_0").attention.num_heads
    return heads


def expected_of(
    weights: google.Weights, model: keras.Model, numerics: type[Flax] = Flax
) -> dict[str, np.ndarray]:
    images = images_for(1, model.input_shape[1:3]).astype(np.float64)
    return vit(weights, images / 127.5 - 1, num_heads(model), numerics)


def write(folder: Path, weights: google.Weights, prefix: str = "") -> Path:
    path = folder / "vit.npz"
    np.savez(path, **{f"{prefix}{name}": x for name, x in weights.items()})
    return path


@pytest.mark.parametrize("name", NAMES)
def test_equals_numpy(name: str, tmp_path: Path) -> None:
    make, build = CASES[name]
    weights, model = make(), build()
    report = kv.weights.load(model, write(tmp_path, weights))
    assert report.source == "google"
    assert sorted(report.matched) == sorted(weights)
    assert report.resized + report.fresh + report.unused == ()
    expected = expected_of(weights, model)
    blocks = [layer for layer in model.layers if layer.name.startswith("block_")]
    outputs = [blocks[0].input, *(block.output for block in blocks)]
    outputs += [model.get_layer("head").input, model.output]
    found = to_numpy(
        keras.Model(model.input, outputs)(images_for(1, model.input_shape[1:3]))
    )
    for stage, values in zip(expected, found, strict=True):
        assert_equal(values, expected[stage], stage)


@pytest.mark.parametrize("prefix", ["opt/target/", "params/", "params/img/"])
def test_prefixes(prefix: str, tmp_path: Path) -> None:
    weights, model = old_file(), small(representation_dim=64)
    path = write(tmp_path, weights, prefix)
    report = kv.weights.load(model, path)
    assert sorted(report.matched) == sorted(f"{prefix}{name}" for name in weights)
    logits = to_numpy(model(images_for(1, SIZE)))
    assert_equal(logits, expected_of(weights, model)["logits"], "logits")


def test_a_pooling_without_a_name_of_its_own(tmp_path: Path) -> None:
    weights = pooling_file()
    inlined = {name.removeprefix("MAPHead_0/"): x for name, x in weights.items()}
    model = small(class_token=False, pooling="attention")
    kv.weights.load(model, write(tmp_path, inlined))
    logits = to_numpy(model(images_for(1, SIZE)))
    assert_equal(logits, expected_of(weights, model)["logits"], "logits")


def small_deviations() -> google.Weights:
    """Kernels as small as the decay of trained weights may leave them."""
    weights = hybrid_file((2, 2, 2, 2), (384, 12, 6, 1536), 1, 2)
    return {n: x * (0.1 if "conv" in n else 1) for n, x in weights.items()}


@pytest.mark.parametrize(
    ("arguments", "numerics"),
    [(GOOGLE, Flax), ({"activation": "gelu_tanh"}, Timm)],
    ids=["google", "timm"],
)
def test_standardisation_of_hybrids(
    arguments: dict[str, Any], numerics: type[Flax], tmp_path: Path
) -> None:
    """Flax and timm keep from dividing by zero in two ways, and it shows."""
    weights = small_deviations()
    model = kv.models.hybrid_vit(num_classes=10, image_size=(32, 64), **arguments)
    kv.weights.load(model, write(tmp_path, weights))
    logits = to_numpy(model(images_for(1, (32, 64))))
    for theirs in (Flax, Timm):
        expected = expected_of(weights, model, theirs)["logits"]
        if theirs is numerics:
            assert_equal(logits, expected, theirs.__name__)
        else:
            assert difference(logits, expected) > 3 * TOLERANCE


def test_exact_activations_would_be_noticed(tmp_path: Path) -> None:
    """Flax approximates the GELU, and other frameworks run its weights without."""
    weights, model = old_file(), small(representation_dim=64, activation="gelu")
    kv.weights.load(model, write(tmp_path, weights))
    logits = to_numpy(model(images_for(1, SIZE)))
    assert difference(logits, expected_of(weights, model)["logits"]) > TOLERANCE


def test_positions_are_resampled_by_googles_rule(tmp_path: Path) -> None:
    """`scipy.ndimage.zoom` of order 1, which test_resampling.py compares with."""
    weights = old_file()
    model = small((32, 80), representation_dim=64)
    report = kv.weights.load(model, write(tmp_path, weights))
    name = "Transformer/posembed_input/pos_embedding"
    assert report.resized == (name,)
    prefix, grid = np.split(weights[name][0], [1])
    grid = kv.ops.resampling.resize_grid(
        grid.reshape(6, 6, 64), (4, 10), "bilinear_align_corners"
    )
    weights[name] = np.concatenate([prefix, grid.reshape(40, 64)])[None]
    logits = to_numpy(model(images_for(1, (32, 80))))
    assert_equal(logits, expected_of(weights, model)["logits"], "logits")


def test_patches_and_channels_of_another_size(tmp_path: Path) -> None:
    weights = new_file()
    stem = PatchEmbedding(64, 12, name="patch_embedding")
    model = build_vit(
        ViTSize(*NUMBERS),
        stem,
        image_size=(72, 72),
        num_channels=1,
        num_classes=10,
        class_token=False,
        pooling="average",
    )
    path = write(tmp_path, weights)
    report = kv.weights.load(model, path, adapt_channels=True)
    assert report.resized == ("embedding/kernel",)
    grey = weights["embedding/kernel"].sum(2, keepdims=True)
    resize = kv.ops.resampling.resize_patch_kernel  # as FlexiViT's: bilinear
    np.testing.assert_allclose(
        stem.kernel, resize(grey, (12, 12), "bilinear"), atol=1e-6
    )


def test_raw_bfloat16(tmp_path: Path) -> None:
    """NumPy writes it as two bytes without a name."""
    rounded = {name: x.astype(ml_dtypes.bfloat16) for name, x in new_file().items()}
    path = write(tmp_path, rounded)
    with np.load(path) as file:
        assert file["head/kernel"].dtype == np.dtype("V2")
    model = small(class_token=False, pooling="average")
    kv.weights.load(model, path)
    expected = expected_of(rounded, model)["logits"]
    assert_equal(to_numpy(model(images_for(1, SIZE))), expected, "logits")


def test_a_layer_before_the_head_is_not_forgotten(tmp_path: Path) -> None:
    path = write(tmp_path, old_file())
    with pytest.raises(
        kv.weights.CheckpointError, match=r"without a place .*pre_logits"
    ):
        kv.weights.load(small(), path)
    report = kv.weights.load(small(num_classes=5), path, unused=["pre_logits"])
    unused = {"pre_logits/kernel", "pre_logits/bias", "head/kernel", "head/bias"}
    assert set(report.unused) == unused
    assert report.fresh == ("head/kernel", "head/bias")
