import json

import pytest

from kvision.cli.models import run
from kvision.models.presets import PRESETS
from kvision.models.published import PUBLISHED


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


def test_presets(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(None, None, None)["presets"]
    assert [one["name"] for one in found] == list(PRESETS)
    assert json.dumps(found)
    said = capsys.readouterr().out
    assert "vit_b16_augreg_imagenet1k" in said
    assert run("vit", "Ti/16", (32, 32))["presets"] == []


def test_presets_of_a_detector() -> None:
    found = run("mask_rcnn", None, None)
    assert found["models"] == []
    assert {one["name"] for one in found["presets"]} == {
        "mask_rcnn_resnet50_coco",
        "mask_rcnn_resnet50_v2_coco",
    }
    with pytest.raises(ValueError, match="multiply-adds are counted of classifiers"):
        run("mask_rcnn", "resnet50", None)
