"""The family of Vision Transformers against timm 1.0.31's, stage by stage.

`record_timm.py` made the values; both sides make their weights from the names.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kvision as kv
from kvision import models
from kvision.layers import PatchEmbedding
from kvision.models.classifier import IMAGENET
from kvision.models.vit import ViTSize, build_vit
from tests.ops.modes import to_numpy
from tests.parity.compare import TOLERANCE, assert_equal, difference
from tests.parity.files import write_file
from tests.parity.seeded import images_for, sample, summary
from tests.parity.timm_seeded import weights_for

GOLDEN = Path(__file__).parent / "golden"
ODD = (96, 128)


def small(
    image_size: tuple[int, int] = ODD,
    patch_size: int = 16,
    mlp_dim: int = 768,
    **arguments: Any,
) -> keras.Model:
    """Build a transformer as wide as ViT-Ti and of three blocks."""
    stem = PatchEmbedding(
        192,
        patch_size,
        use_bias=not arguments.get("pre_norm"),
        name="patch_embedding",
    )
    size = ViTSize(192, 3, 3, mlp_dim)
    return build_vit(size, stem, image_size=image_size, num_classes=10, **arguments)


BUILDERS: dict[str, Callable[[], keras.Model]] = {
    "vit_tiny": lambda: models.vit("Ti/16", num_classes=10),
    "vit_tiny_resampled": lambda: models.vit(
        "Ti/16", num_classes=10, image_size=(160, 288), position_grid=(14, 14)
    ),
    "vit_base": lambda: models.vit("B/16", num_classes=10),
    "qk_norm": lambda: small(qk_norm=True),
    "registers": lambda: small(
        num_register_tokens=4, prefix_positions=False, layer_scale=0.1
    ),
    "registers_average": lambda: small(
        num_register_tokens=4,
        prefix_positions=False,
        class_token=False,
        pooling="average",
        norm_after_pooling=True,
    ),
    "token_and_registers_average": lambda: small(
        num_register_tokens=2, pooling="average"
    ),
    "dinov2": lambda: small(
        (98, 126),
        14,
        512,
        activation="swiglu",
        layer_scale=1e-5,
        normalization=IMAGENET,
    ),
    "attention_pooling": lambda: small(class_token=False, pooling="attention"),
    "clip": lambda: small(pre_norm=True, epsilon=1e-5, activation="quick_gelu"),
    "deit_tiny_distilled": lambda: models.deit("Ti/16", distilled=True, num_classes=10),
    "deit_small_distilled": lambda: models.deit("S/16", distilled=True, num_classes=10),
    "deit3_small": lambda: models.deit3("S/16", num_classes=10, image_size=ODD),
    "r26_s32": lambda: models.hybrid_vit(
        "R26+S/32", num_classes=10, image_size=(128, 160)
    ),
    "r_ti16": lambda: models.hybrid_vit("R+Ti/16", num_classes=10, image_size=ODD),
    "twins_svt": lambda: models.twins_svt("S", num_classes=10),
    "twins_pcpvt": lambda: models.twins_pcpvt(
        "S", num_classes=10, image_size=(96, 160)
    ),
}
SLOW = ("vit_base", "deit_small_distilled")
NAMES = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
    for name in BUILDERS
]


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"timm_{name}.npz") as file:
        return dict(file)


def write(folder: Path, name: str) -> Path:
    """Write the file that timm would."""
    path = folder / f"{name}.safetensors"
    return write_file(path, golden(name)["state_dict"], weights_for)


def load(model: keras.Model, name: str, folder: Path) -> None:
    """Load timm's weights from a file, as a user would."""
    report = kv.weights.load(model, write(folder, name))
    assert report.source == "timm"
    assert report.resized + report.fresh + report.unused == ()


def images_of(model: keras.Model, recorded: dict[str, np.ndarray]) -> np.ndarray:
    return images_for(len(recorded["logits"]), model.input_shape[1:3])


def stages_of(model: keras.Model) -> list[Any]:
    """What enters the first block, leaves each, and enters the head.

    A stage of Twins begins with a block whose output goes on through a convolution.
    """
    layers = {layer.name: layer for layer in model.layers}
    blocks = [name for name in layers if "block_" in name and "stage" not in name]
    blocks = blocks or [name for name in layers if "_block_" in name]
    outputs = []
    for name in blocks:
        stage = name.partition("_block_")[0]
        placed = layers.get(f"{stage}_position_embedding")
        first = name.endswith("_block_0") and placed is not None
        outputs.append((placed if first else layers[name]).output)
    return [layers[blocks[0]].input, *outputs, layers["head"].input]


@pytest.mark.parametrize("name", NAMES)
def test_equals_timm(name: str, tmp_path: Path) -> None:
    recorded = golden(name)
    model = BUILDERS[name]()
    load(model, name, tmp_path)
    images = images_of(model, recorded)
    whole = keras.Model(model.input, [*stages_of(model), model.output])
    *stages, logits = to_numpy(whole(images))
    rows = zip(
        recorded["stages"],
        recorded["samples"],
        recorded["summaries"],
        stages,
        strict=True,
    )
    for stage, values, total, found in rows:
        found = np.asarray(found)
        measured = np.abs(sample(found, len(values)) - values).max() / total[2]
        overall = difference(summary(found), total)
        print(f"{stage}: {measured:.1e} of the largest value; mean, rms {overall:.1e}")
        assert max(measured, overall) <= TOLERANCE, stage
    assert_equal(logits, recorded["logits"], "logits")


def test_positions_resampled_for_another_size_equal_timm(tmp_path: Path) -> None:
    """`with_image_size` of a loaded model, against timm's dynamic_img_size."""
    recorded = golden("vit_tiny_resampled")
    model = BUILDERS["vit_tiny"]()
    load(model, "vit_tiny", tmp_path)
    model = models.with_image_size(model, (160, 288))
    logits = to_numpy(model(images_of(model, recorded)))
    assert_equal(logits, recorded["logits"], "logits")


def test_positions_resampled_by_loading_equal_timm(tmp_path: Path) -> None:
    """As by `with_image_size`; the file is that of 224 x 224."""
    recorded = golden("vit_tiny_resampled")
    model = models.vit("Ti/16", num_classes=10, image_size=(160, 288))
    report = kv.weights.load(model, write(tmp_path, "vit_tiny"))
    assert report.resized == ("pos_embed",)
    logits = to_numpy(model(images_of(model, recorded)))
    assert_equal(logits, recorded["logits"], "logits")


def test_recorded_values_tell_epsilons_of_twins_apart(tmp_path: Path) -> None:
    """Otherwise the comparison would not notice a wrong one."""
    recorded = golden("twins_pcpvt")
    model = BUILDERS["twins_pcpvt"]()
    load(model, "twins_pcpvt", tmp_path)
    images = images_of(model, recorded)
    for name in ("stage0_patch_embedding", "stage0_block_0"):
        layer = model.get_layer(name)
        norm = layer.norm if "patch" in name else layer.attention.reduce.norm
        norm.epsilon = 1e-6
        changed = to_numpy(model(images))
        norm.epsilon = 1e-5
        measured = difference(changed, recorded["logits"])
        print(f"{name} with epsilon 1e-6: {measured:.1e}")
        assert measured > 3 * TOLERANCE
