"""What `kvision.weights.load` makes fit, what it refuses, and what it says."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest

import kvision as kv
from kvision.ops.resampling import resize_patch_kernel
from kvision.weights import CheckpointError, detectron2, loading
from kvision.weights.assigning import assign
from kvision.weights.channels import with_channels
from tests.ops.modes import to_numpy
from tests.parity.seeded import images_for
from tests.weights.timm_file import (
    Tensors,
    small_dynamic_vit,
    small_vit,
    tensors_of,
    write,
)


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return tensors_of(small_vit())


def values_of(model: keras.Model) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.weights]


def logits_of(model: keras.Model) -> np.ndarray:
    return np.asarray(to_numpy(model(images_for(2, model.input_shape[1:3]))))


def test_every_tensor_is_matched(tensors: Tensors, tmp_path: Path) -> None:
    model = small_vit()
    report = kv.weights.load(model, write(tmp_path, tensors))
    assert report.source == "timm"
    assert sorted(report.matched) == sorted(tensors)
    assert report.resized + report.fresh + report.unused == ()
    kernel = model.get_layer("block_1").attention.qkv.kernel
    np.testing.assert_array_equal(kernel, tensors["blocks.1.attn.qkv.weight"].T)


def test_a_head_of_other_classes_begins_anew(tensors: Tensors, tmp_path: Path) -> None:
    model = small_vit(num_classes=3)
    before = model.get_layer("head").get_weights()
    report = kv.weights.load(model, write(tmp_path, tensors))
    assert report.fresh == ("head/kernel", "head/bias")
    assert report.unused == ("head.weight", "head.bias")
    assert len(report.matched) == len(tensors) - 2
    for old, new in zip(before, model.get_layer("head").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_file_without_a_head(tensors: Tensors, tmp_path: Path) -> None:
    headless = {name: x for name, x in tensors.items() if "head" not in name}
    report = kv.weights.load(small_vit(), write(tmp_path, headless))
    assert report.fresh == ("head/kernel", "head/bias")


@pytest.mark.parametrize("size", [(48, 48), (16, 24), (16, 64)])
def test_positions_are_resampled(
    size: tuple[int, int], tensors: Tensors, tmp_path: Path
) -> None:
    """As `with_image_size` does, compared with timm; 16 x 64 has 16 patches too."""
    path = write(tmp_path, tensors)
    model, original = small_vit(image_size=size), small_vit()
    report = kv.weights.load(model, path)
    assert report.resized == ("pos_embed",)
    assert "pos_embed" not in report.matched
    kv.weights.load(original, path)
    expected = logits_of(kv.models.with_image_size(original, size))
    np.testing.assert_array_equal(logits_of(model), expected)


def test_positions_of_an_unknown_grid_are_refused(
    tensors: Tensors, tmp_path: Path
) -> None:
    path = write(tmp_path, {**tensors, "pos_embed": np.ones((1, 1 + 14, 32), "f4")})
    with pytest.raises(CheckpointError, match="14 positions are no square grid"):
        load_nothing(small_vit(), path)


def load_nothing(model: keras.Model, path: Path, **arguments: Any) -> None:
    """Load what does not fit, and see that the model is as it was."""
    before = values_of(model)
    try:
        kv.weights.load(model, path, **arguments)
    finally:
        for old, new in zip(before, values_of(model), strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("file_has", [True, False])
def test_positions_of_prefix_tokens_either_way(
    file_has: bool, tmp_path: Path, tensors: Tensors
) -> None:
    """Joined then placed, or placed then joined: the sum is the same."""
    has, has_not = (
        small_vit(prefix_positions=value, num_register_tokens=3)
        for value in (True, False)
    )
    given, other = (has, has_not) if file_has else (has_not, has)
    path = write(tmp_path, tensors_of(given))
    report = kv.weights.load(other, path)
    assert report.resized + report.fresh + report.unused == ()
    kv.weights.load(given, path)
    expected = logits_of(given)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits_of(other), expected, atol=1e-5)


def test_patches_of_another_size(tensors: Tensors, tmp_path: Path) -> None:
    model = small_vit(patch_size=12, image_size=(48, 48))
    report = kv.weights.load(model, write(tmp_path, tensors))
    assert report.resized == ("patch_embed.proj.weight",)
    kernel = tensors["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    expected = resize_patch_kernel(kernel, (12, 12), "bicubic_antialias")
    found = model.get_layer("patch_embedding").kernel
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_other_channels_on_request(
    channels: int, tensors: Tensors, tmp_path: Path
) -> None:
    path = write(tmp_path, tensors)
    model = small_vit(num_channels=channels)
    with pytest.raises(CheckpointError, match="only patches are resized, not channels"):
        load_nothing(model, path)
    report = kv.weights.load(model, path, adapt_channels=True)
    assert sorted(report.matched) == sorted(tensors)
    original = tensors["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    found = np.array(model.get_layer("patch_embedding").kernel)
    # Equal channels weigh as much as before: their sum is that of the original where
    # every channel came as often; or else it is scaled.
    repeated = original[:, :, np.arange(channels) % 3] * 3 / channels
    expected = original.sum(2, keepdims=True) if channels == 1 else repeated
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_of_a_kernel_for_bgr(channels: int) -> None:
    """The order of a model's images counts, not that of detectron2's."""
    variable = SimpleNamespace(shape=(7, 7, channels, 64))
    (place,) = detectron2._first(variable, "stem.conv1")
    kernel = np.zeros((64, 3, 7, 7), np.float16)
    blue, green, red = kernel[:, 0], kernel[:, 1], kernel[:, 2] = 0.5, 1.0, 2.0
    found = with_channels(place, {place.names[0]: kernel.shape}).convert(kernel)
    repeated = np.array([red, green, blue, red][:channels]) * 3 / channels
    expected = [blue + green + red] if channels == 1 else repeated
    np.testing.assert_allclose(found[0, 0, :, 0], expected)


def broken(tensors: Tensors) -> dict[str, tuple[Tensors, str]]:
    """Return files that do not fit, and what is said of each."""
    without = {n: x for n, x in tensors.items() if not n.startswith("blocks.1.mlp")}
    wide = {**tensors, "blocks.0.mlp.fc1.bias": np.zeros(65, np.float32)}
    more = {**tensors, "blocks.2.norm1.weight": np.ones(32, np.float32)}
    transposed = {**tensors, "pos_embed": np.ones((1, 32, 17), np.float32)}
    return {
        "missing": (without, r"4 missing in the file: blocks\.1\.mlp\.\S+, .*, \.\.\."),
        "shape": (wide, r"1 of another shape: blocks\.0\.mlp\.fc1\.bias \(65,\) inst"),
        "strange": (more, r"1 in the file without a place .*: blocks\.2\.norm1\.weig"),
        "positions": (transposed, r"pos_embed"),
    }


@pytest.mark.parametrize("kind", ["missing", "shape", "strange", "positions"])
def test_what_does_not_correspond_is_one_error(
    kind: str, tensors: Tensors, tmp_path: Path
) -> None:
    given, message = broken(tensors)[kind]
    with pytest.raises(CheckpointError, match=message) as caught:
        load_nothing(small_vit(), write(tmp_path, given))
    assert "vit.safetensors" in str(caught.value)


def test_all_kinds_are_in_one_error(tensors: Tensors, tmp_path: Path) -> None:
    given = {**tensors, "extra": np.ones(1, np.float32)}
    del given["norm.weight"]
    model = small_vit(positions="relative")
    with pytest.raises(CheckpointError) as caught:
        load_nothing(model, write(tmp_path, given))
    message = str(caught.value)
    assert "1 missing in the file: norm.weight" in message
    assert "2 in the file without a place in the model: extra, pos_embed" in message
    assert "2 in the model without a name in this layout: position_bias_0" in message
    assert "Nothing was loaded" in message


def test_unused_is_named(tensors: Tensors, tmp_path: Path) -> None:
    given = {**tensors, "decoder.a": np.ones(1, "f4"), "decoder.b": np.ones(1, "f4")}
    path = write(tmp_path, given)
    with pytest.raises(CheckpointError, match=r"decoder\.a, decoder\.b"):
        load_nothing(small_vit(), path)
    with pytest.raises(CheckpointError, match=r"1 in the file .*: decoder\.b"):
        load_nothing(small_vit(), path, unused="decoder.a")
    report = kv.weights.load(small_vit(), path, unused=["decoder."])
    assert report.unused == ("decoder.a", "decoder.b")


def test_errors_have_the_names_of_the_file(tensors: Tensors, tmp_path: Path) -> None:
    """Not those that its layout has for them, which nobody could find in the file."""
    model = small_vit(layer_scale=0.1)
    given = {
        name.replace("ls1.gamma", "gamma_1"): x for name, x in tensors_of(model).items()
    }
    given["blocks.0.gamma_1"] = np.ones(3, np.float32)
    given["blocks.2.gamma_1"] = np.ones(32, np.float32)
    path = write(tmp_path, given)
    with pytest.raises(CheckpointError) as caught:
        load_nothing(model, path)
    assert "blocks.0.gamma_1 (3,) instead of (32,)" in str(caught.value)
    assert "without a place in the model: blocks.2.gamma_1" in str(caught.value)
    given["blocks.0.gamma_1"] = np.ones(32, np.float32)
    report = kv.weights.load(model, write(tmp_path, given), unused=["blocks.2.gamma"])
    assert report.unused == ("blocks.2.gamma_1",)
    assert "blocks.1.gamma_1" in report.matched


HOSTILE = "a\nb\x1b[31m\x00\ud800[/]"


def test_any_name_fits_in_one_line(tensors: Tensors, tmp_path: Path) -> None:
    path = tmp_path / "vit.pkl"
    path.write_bytes(pickle.dumps({**tensors, HOSTILE + "c" * 1000: np.ones(1)}))
    with pytest.raises(CheckpointError, match="in the model: a") as caught:
        load_nothing(small_vit(), path)
    message = str(caught.value)
    assert r"a\nb\x1b[31m\x00\ud800[/]ccc" in message
    assert message.isprintable()
    assert len(message) < len(str(path)) + 400
    report = kv.weights.load(small_vit(), path, unused=["a\n"])
    assert r"a\nb\x1b[31m\x00\ud800[/]ccc" in str(report)


def test_a_report_has_no_codes_of_a_terminal() -> None:
    report = kv.weights.Report(Path("\x1b"), "", *[("\x1b",)] * 5)
    assert "\x1b" not in str(report)
    assert str(report).count(r"\x1b") == 6


LAST = "head.weight"  # the model has it last, and the file too


def zipped_numpy(path: Path, tensors: Tensors) -> None:
    with path.open("wb") as file:
        np.savez(file, **tensors)


def compressed_numpy(path: Path, tensors: Tensors) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **tensors)


@pytest.mark.parametrize("write_to", [zipped_numpy, compressed_numpy])
def test_a_file_damaged_at_its_end_changes_nothing(
    write_to: Callable[[Path, Tensors], None], tensors: Tensors, tmp_path: Path
) -> None:
    """What shows only when the last tensor's values are read."""
    path = tmp_path / "vit.npz"
    others = {name: values for name, values in tensors.items() if name != LAST}
    write_to(path, {**others, LAST: tensors[LAST]})
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[-1] == f"{LAST}.npy"
        end = archive.start_dir
    content = bytearray(path.read_bytes())
    content[end - 9] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"vit\.npz: {LAST}: .* damaged"):
        load_nothing(small_vit(), path)


def test_a_file_that_shrinks_before_it_is_read_changes_nothing(
    tensors: Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, tensors)

    def shrunk(*arguments: Any) -> None:
        os.truncate(path, path.stat().st_size - 8)
        assign(*arguments)

    monkeypatch.setattr(loading, "assign", shrunk)
    with pytest.raises(CheckpointError, match="the file was shortened"):
        load_nothing(small_vit(), path)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_any_dtype(dtype: Any, tensors: Tensors, tmp_path: Path) -> None:
    rounded = {name: x.astype(dtype) for name, x in tensors.items()}
    model = small_vit(image_size=(48, 48))
    kv.weights.load(model, write(tmp_path, rounded))
    found = model.get_layer("block_0").mlp.fc2.kernel
    expected = rounded["blocks.0.mlp.fc2.weight"].astype(np.float32).T
    np.testing.assert_array_equal(found, expected)


def test_dynamic_vit_of_its_authors(tmp_path: Path) -> None:
    model = small_dynamic_vit()
    tensors = tensors_of(model)
    # raoyongming/DynamicViT, vit.py: the names of PredictorLG.
    scorer = {name for name in tensors if name.startswith("score_predictor.0.")}
    kinds = ("in_conv.0", "in_conv.1", "out_conv.0", "out_conv.2", "out_conv.4")
    assert scorer == {
        f"score_predictor.0.{kind}.{part}"
        for kind in kinds
        for part in ("weight", "bias")
    }
    report = kv.weights.load(model, write(tmp_path, tensors))
    assert sorted(report.matched) == sorted(tensors)
    found = model.get_layer("token_scorer_1").out_dense3.kernel
    expected = tensors["score_predictor.0.out_conv.4.weight"].T
    np.testing.assert_array_equal(found, expected)


def test_a_layer_before_the_head_of_timm(tmp_path: Path) -> None:
    """Until 0.5 timm kept that of Google's first weights for ImageNet-21k."""
    model = small_vit(representation_dim=48)
    tensors = tensors_of(model)
    assert tensors["pre_logits.fc.weight"].shape == (48, 32)
    path = write(tmp_path, tensors)
    report = kv.weights.load(model, path)
    assert sorted(report.matched) == sorted(tensors)
    found = model.get_layer("representation").kernel
    np.testing.assert_array_equal(found, tensors["pre_logits.fc.weight"].T)
    with pytest.raises(CheckpointError, match=r"without a place .*: pre_logits\.fc"):
        load_nothing(small_vit(), path)


def test_layer_scales_of_meta(tmp_path: Path) -> None:
    """DeiT III of its authors has them as `gamma_1`; timm as `ls1.gamma`."""
    model = small_vit(layer_scale=0.1)
    tensors = tensors_of(model)
    metas = {
        name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): x
        for name, x in tensors.items()
    }
    assert "blocks.0.gamma_1" in metas
    kv.weights.load(model, write(tmp_path, metas))
    found = model.get_layer("block_1").layer_scale2.gamma
    np.testing.assert_array_equal(found, tensors["blocks.1.ls2.gamma"])


def test_the_weights_among_the_rest_of_a_training(
    tensors: Tensors, tmp_path: Path
) -> None:
    """Meta's DeiT and DynamicViT come as {"model": ...}."""
    path = tmp_path / "deit.pth"
    path.write_bytes(pickle.dumps({"model": tensors, "epoch": 300}))
    report = kv.weights.load(small_vit(), path)
    assert sorted(report.matched) == sorted(tensors)


def test_one_of_several_dicts(tensors: Tensors, tmp_path: Path) -> None:
    path = tmp_path / "dino.pth"
    other = {name: x + 1 for name, x in tensors.items()}
    path.write_bytes(pickle.dumps({"student": other, "teacher": tensors}))
    model = small_vit()
    with pytest.raises(CheckpointError, match=r"'student', 'teacher'\. Pass part="):
        load_nothing(model, path)
    kv.weights.load(model, path, part="teacher")
    found = model.get_layer("norm").gamma
    np.testing.assert_array_equal(found, tensors["norm.weight"])
    with pytest.raises(CheckpointError, match=r"no parts, remove part='model'"):
        load_nothing(model, write(tmp_path, tensors), part="model")


def test_two_names_of_one_tensor(tmp_path: Path) -> None:
    model = small_vit(layer_scale=0.1)
    tensors = {**tensors_of(model), "blocks.0.gamma_1": np.ones(32, np.float32)}
    both = r"two names .* in the file: blocks\.0\.gamma_1, blocks\.0\.ls1\.gamma"
    with pytest.raises(CheckpointError, match=both):
        load_nothing(model, write(tmp_path, tensors))


def test_a_layout_that_is_not_known(tmp_path: Path) -> None:
    path = write(tmp_path, {"a": np.ones(1, "f4"), "b": np.ones(1, "f4")})
    with pytest.raises(CheckpointError, match=r"layout of none of .*called a, b"):
        load_nothing(small_vit(), path)
    with pytest.raises(ValueError, match=r"source must be one of 'auto', .*'meta'"):
        load_nothing(small_vit(), path, source="meta")


def test_weights_of_keras_are_for_keras(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.save_weights(path)
    with pytest.raises(CheckpointError, match=r"Keras wrote it: model\.load_weights"):
        load_nothing(small_vit(), path)


def test_one_of_several_files(tensors: Tensors, tmp_path: Path) -> None:
    first = dict(list(tensors.items())[:9])
    path = tmp_path / "model-00001-of-00002.safetensors"
    kv.weights.write_safetensors(path, first)
    with pytest.raises(CheckpointError, match=r"one of several parts: pass the index"):
        load_nothing(small_vit(), path)


def test_the_wrong_layout(tensors: Tensors, tmp_path: Path) -> None:
    """It is a name away from what was meant."""
    path = write(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=r"are those of source='timm'$") as error:
        load_nothing(small_vit(), path, source="hugging_face")
    assert "(hugging_face) does not fit" in str(error.value)
    assert "in the file without a place in the model: " in str(error.value)
    assert "missing in the file: " in str(error.value)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.bool_, np.complex64])
def test_numbers_that_are_no_weights(
    dtype: Any, tensors: Tensors, tmp_path: Path
) -> None:
    """A quantised tensor has lost its scale; a complex one would lose a part."""
    name = "blocks.0.mlp.fc1.weight"
    path = write(tmp_path, {**tensors, name: tensors[name].astype(dtype)})
    message = rf"no weights: blocks\.0\.mlp\.fc1\.weight \({np.dtype(dtype).name}\)"
    with pytest.raises(CheckpointError, match=message):
        load_nothing(small_vit(), path)


def test_the_report_is_a_table(tensors: Tensors, tmp_path: Path) -> None:
    model = small_vit(image_size=(48, 48), num_classes=2)
    given = {**tensors, "more": np.ones(1, np.float32)}
    report = kv.weights.load(model, write(tmp_path, given), unused=["more"])
    text = str(report)
    assert "vit.safetensors (timm)" in text
    lines = [" ".join(line.split()) for line in text.splitlines() if "│" in line]
    rows = {line.split()[1]: line for line in lines}
    assert str(len(tensors) - 3) in rows["matched"]
    assert "1 │ pos_embed" in rows["resized"]
    assert "2 │ head/kernel, head/bias" in rows["fresh"]
    assert "3 │ more, head.weight, ..." in rows["unused"]
