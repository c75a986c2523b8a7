"""Vision Transformers with Transformers' weights against Transformers 5.23.

`record_hugging_face.py` made the values; both sides make their weights from the names.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kvision as kv
from kvision.layers import PatchEmbedding
from kvision.models.vit import ViTSize, build_vit
from tests.ops.modes import to_numpy
from tests.parity.compare import TOLERANCE, assert_equal, difference
from tests.parity.files import write_file
from tests.parity.hugging_face_seeded import weights_for
from tests.parity.seeded import images_for, sample, summary

GOLDEN = Path(__file__).parent / "golden"
# The configuration's default, which its files of Google's weights do not correct.
EPSILON = 1e-12


def small(
    image_size: tuple[int, int] = (48, 48), mlp_dim: int = 128, **arguments: Any
) -> keras.Model:
    stem = PatchEmbedding(64, 8, name="patch_embedding")
    arguments = {"num_classes": 10, **arguments}
    return build_vit(
        ViTSize(64, 3, 2, mlp_dim), stem, image_size=image_size, **arguments
    )


def dinov2(**arguments: Any) -> keras.Model:
    return small(layer_scale=1.0, num_classes=0, **arguments)


BUILDERS: dict[str, Callable[[], keras.Model]] = {
    "vit": lambda: small(epsilon=EPSILON),
    "vit_resampled": lambda: small((40, 64), epsilon=EPSILON),
    "vit_features": lambda: small(
        epsilon=EPSILON, num_classes=0, representation_dim=64
    ),
    "deit": lambda: small(epsilon=EPSILON, distillation_token=True),
    "dinov2": lambda: dinov2(activation="swiglu", mlp_dim=176),
    "dinov2_registers": lambda: dinov2(
        num_register_tokens=4, prefix_positions=False, mlp_dim=256
    ),
}
SPARE = {"embeddings.mask_token"}


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"hugging_face_{name}.npz") as file:
        return dict(file)


def load(model: keras.Model, name: str, folder: Path) -> Any:
    path = folder / "model.safetensors"
    write_file(path, golden(name)["state_dict"], weights_for)
    report = kv.weights.load(model, path)
    assert report.source == "hugging_face"
    assert report.fresh == ()
    assert set(report.unused) <= SPARE
    return report


@pytest.mark.parametrize("name", BUILDERS)
def test_equals_transformers(name: str, tmp_path: Path) -> None:
    recorded = golden(name)
    model = BUILDERS[name]()
    report = load(model, name, tmp_path)
    table = ("vit.embeddings.position_embeddings",)
    assert report.resized == (table if name == "vit_resampled" else ())
    images = images_for(2, model.input_shape[1:3])
    blocks = [model.get_layer(f"block_{number}") for number in range(3)]
    stages = [blocks[0].input, *(block.output for block in blocks)]
    *stages, output = to_numpy(
        keras.Model(model.input, [*stages, model.output])(images)
    )
    rows = zip(recorded["samples"], recorded["summaries"], stages, strict=True)
    for number, (values, total, stage) in enumerate(rows):
        found = np.asarray(stage)
        measured = np.abs(sample(found, len(values)) - values).max() / total[2]
        overall = difference(summary(found), total)
        print(f"stage {number}: {measured:.1e} of the largest; mean, rms {overall:.1e}")
        assert max(measured, overall) <= TOLERANCE, number
    assert_equal(output, recorded["output"], "output")


def test_positions_of_a_register_may_be_zero(tmp_path: Path) -> None:
    """A model that has positions for registers gets none from a file without them."""
    recorded = golden("dinov2_registers")
    model = dinov2(num_register_tokens=4, mlp_dim=256)
    load(model, "dinov2_registers", tmp_path)
    output = to_numpy(model(images_for(2, (48, 48))))
    assert_equal(output, recorded["output"], "output")


def test_timms_rule_for_positions_would_be_noticed(tmp_path: Path) -> None:
    """Loaded at the file's size, brought to another one by the model's own rule."""
    recorded = golden("vit_resampled")
    model = small(epsilon=EPSILON)
    load(model, "vit", tmp_path)
    model = kv.models.with_image_size(model, (40, 64))
    output = to_numpy(model(images_for(2, (40, 64))))
    assert difference(output, recorded["output"]) > 3 * TOLERANCE


def test_names_of_transformers_5(tmp_path: Path) -> None:
    """What is in memory there has other names than files, which may change."""
    recorded = golden("vit")
    modern = {
        ".encoder.layer.": ".layers.",
        ".attention.attention.query.": ".attention.q_proj.",
        ".attention.attention.key.": ".attention.k_proj.",
        ".attention.attention.value.": ".attention.v_proj.",
        ".attention.output.dense.": ".attention.o_proj.",
        ".intermediate.dense.": ".mlp.fc1.",
        ".output.dense.": ".mlp.fc2.",
    }
    tensors = {}

    def renamed(name: str, shape: tuple[int, ...]) -> np.ndarray:
        values = weights_for(name, shape)
        for old, new in modern.items():
            name = name.replace(old, new)
        tensors[name] = values
        return values

    write_file(tmp_path / "old.safetensors", recorded["state_dict"], renamed)
    assert "vit.layers.0.mlp.fc2.weight" in tensors
    kv.weights.write_safetensors(tmp_path / "new.safetensors", tensors)
    model = BUILDERS["vit"]()
    kv.weights.load(model, tmp_path / "new.safetensors")
    assert_equal(to_numpy(model(images_for(2, (48, 48)))), recorded["output"], "logits")


def test_a_deit_fine_tuned_without_a_teacher(tmp_path: Path) -> None:
    """It has one head, `classifier`: the other begins anew, and the report says so."""
    lines = str(golden("deit")["state_dict"]).replace("cls_classifier", "classifier")
    kept = [line for line in lines.splitlines() if "distillation_c" not in line]
    path = tmp_path / "model.safetensors"
    write_file(path, np.array("\n".join(kept)), weights_for)
    report = kv.weights.load(BUILDERS["deit"](), path)
    assert report.fresh == ("head_dist/kernel", "head_dist/bias")
