import json
from pathlib import Path

import pytest

from kvision.cli.models import run
from kvision.models.presets import PRESETS
from kvision.models.published import PUBLISHED


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of downloads that is not there yet, and 80 columns."""
    monkeypatch.setenv("KVISION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "home"


def test_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(run(None, None, None)["models"]) == len(PUBLISHED)
    assert "86,567,656" in capsys.readouterr().out


def test_one_family() -> None:
    rows = run("deit", None, None)["models"]
    assert {row["builder"] for row in rows} == {"deit"}
    assert sum("distilled" in row["arguments"] for row in rows) == 3


def test_any_model_at_any_size() -> None:
    (row,) = run("conv_vit", "Ti/16", (64, 96))["models"]
    # By hand: 11 blocks, 25 tokens.
    tokens, dim = 4 * 6 + 1, 192
    block = tokens * dim * dim * (3 + 1 + 8) + 2 * tokens * tokens * dim
    stem = sum(
        64 * 96 // 4**step * 9 * before * after
        for step, before, after in ((1, 3, 24), (2, 24, 48), (3, 48, 96), (4, 96, 192))
    )
    stem += 24 * dim * dim
    assert row["multiply_adds"] == 11 * block + stem + dim * 1000


def test_unknown() -> None:
    with pytest.raises(ValueError, match="Did you mean 'twins_svt'"):
        run("twin_svt", None, None)
    with pytest.raises(ValueError, match="variant must be"):
        run("vit", "X/16", None)


def test_image_size_needs_a_variant() -> None:
    for model in (None, "vit", "vit_b16_augreg_imagenet1k"):
        with pytest.raises(ValueError, match="--image-size needs"):
            run(model, None, (64, 64))


def test_presets(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    found = run(None, None, None)["presets"]
    assert [one["name"] for one in found] == list(PRESETS)
    assert json.dumps(found)
    said = capsys.readouterr().out
    assert "vit_b16_augreg_imagenet1k" in said
    assert "…" not in said  # nothing is cut off in 80 columns
    assert max(map(len, said.splitlines())) <= 80
    assert run("vit", "Ti/16", (32, 32))["presets"] == []


def test_presets_of_a_detector(home: Path) -> None:
    found = run("mask_rcnn", None, None)
    assert found["models"] == []
    assert {one["name"] for one in found["presets"]} == {
        "mask_rcnn_resnet50_coco",
        "mask_rcnn_resnet50_v2_coco",
    }
    with pytest.raises(ValueError, match="multiply-adds are counted of classifiers"):
        run("mask_rcnn", "resnet50", None)


def test_one_preset(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    """All that the issue names, for people and as json."""
    name = "deit_ti16_distilled_imagenet1k"
    (found,) = run(name, None, None)["presets"]
    origin = (
        "https://huggingface.co/timm/deit_tiny_distilled_patch16_224.fb_in1k"
        "/resolve/main/model.safetensors"
    )
    assert found["origin"] == origin
    assert (found["revision"], found["sha256"], found["recorded"]) == (None, None, {})
    said = capsys.readouterr().out
    for one in ("models.deit", "distilled=True", "crop_fraction=0.9", "5,910,800"):
        assert one in said
    for one in ("Apache-2.0", "huggingface.co/timm", "top-1 74.5 (huggingface/"):
        assert one in said
    assert "main, recorded at the first download" in said
    with pytest.raises(ValueError, match="no variants"):
        run(name, "S/16", None)


def test_what_was_recorded_is_shown(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    home.mkdir()
    key = "timm/deit_tiny_distilled_patch16_224.fb_in1k/model.safetensors@main"
    entry = {"sha256": 64 * "a", "revision": 40 * "b"}
    (home / "lock.json").write_text(json.dumps({key: entry}))
    (found,) = run("deit_ti16_distilled_imagenet1k", None, None)["presets"]
    assert found["recorded"] == entry
    said = capsys.readouterr().out
    assert 40 * "b" in said
    assert 50 * "a" in said


def test_hash_in_the_name(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    run("mask_rcnn_resnet50_coco", None, None)
    said = capsys.readouterr().out
    assert "begins with bf2d0c1e" in said
    assert "revision" not in said
    assert "mask AP 34.6 (torchvision 0.29" in said


def test_preset_that_is_nearly_named() -> None:
    message = "No model or preset 'deit_s16'.*'deit_s16_imagenet1k'"
    with pytest.raises(ValueError, match=message):
        run("deit_s16", None, None)
