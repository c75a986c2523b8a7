"""DINOv2's own files against timm, which runs these models under its own names.

The values are those that test_timm.py has; the files have the names and tables of
facebookresearch/dinov2.
"""

from pathlib import Path

import keras
import numpy as np
import pytest

import kvision as kv
from kvision.ops.resampling import resize_grid
from tests.ops.modes import to_numpy
from tests.parity import test_timm as timm
from tests.parity.compare import assert_equal
from tests.parity.files import Tensors, tensors_of
from tests.parity.timm_seeded import weights_for


def own_file(name: str) -> Tensors:
    """Bring timm's tensors to the names and tables of the authors' files."""
    tensors = tensors_of(timm.golden(name)["state_dict"], weights_for)
    tensors["mask_token"] = np.ones((1, 192), np.float32)
    if "reg_token" in tensors:
        # timm has added the position of the class token to it.
        tensors["register_tokens"] = tensors.pop("reg_token")
        first = np.full((1, 1, 192), 0.25, np.float32)
        tensors["cls_token"] = tensors["cls_token"] - first
        tensors["pos_embed"] = np.concatenate([first, tensors["pos_embed"]], axis=1)
        return tensors
    swiglu = {".mlp.fc1.": ".mlp.w12.", ".mlp.fc2.": ".mlp.w3."}
    for old, new in swiglu.items():
        tensors = {name.replace(old, new): x for name, x in tensors.items()}
    return tensors


def load(model: keras.Model, tensors: Tensors, folder: Path) -> kv.weights.Report:
    path = folder / "dinov2_vitt14_pretrain.safetensors"
    kv.weights.write_safetensors(path, tensors)
    report = kv.weights.load(model, path)
    assert report.source == "dinov2"
    assert report.unused == ("mask_token",)
    assert report.fresh == ()
    return report


@pytest.mark.parametrize("name", ["dinov2", "registers"])
def test_equals_timm(name: str, tmp_path: Path) -> None:
    """The gated MLP of the giant, and registers, which have no positions."""
    recorded = timm.golden(name)
    model = timm.BUILDERS[name]()
    report = load(model, own_file(name), tmp_path)
    assert report.resized == ()
    logits = to_numpy(model(timm.images_of(model, recorded)))
    assert_equal(logits, recorded["logits"], "logits")


@pytest.mark.parametrize(
    ("name", "rule"),
    [("dinov2", "bicubic_offset"), ("registers", "bicubic_antialias")],
)
def test_positions_are_resampled_by_the_rule_of_the_release(
    name: str, rule: str, tmp_path: Path
) -> None:
    """Both rules are compared with PyTorch in test_resampling.py."""
    tensors = own_file(name)
    table = np.array(tensors["pos_embed"][0, 1:37]).reshape(6, 6, 192)
    both = [tensors["pos_embed"][:, :1], table.reshape(1, 36, 192)]
    tensors["pos_embed"] = np.concatenate(both, axis=1)
    model = timm.BUILDERS[name]()
    report = load(model, tensors, tmp_path)
    assert report.resized == ("pos_embed",)
    embedding = model.get_layer("position_embedding")
    expected = resize_grid(table, embedding.grid, rule).reshape(-1, 192)
    found = np.array(embedding.table)[0, embedding.num_prefix_tokens :]
    np.testing.assert_allclose(found, expected, atol=1e-6)
