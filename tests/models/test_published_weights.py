"""Real weights from their publishers: `pytest -m network tests/models`, 200 MB."""

import json
from pathlib import Path

import numpy as np
import pytest

import kvision

pytestmark = pytest.mark.network

CLASSIFIER = "vit_ti16_augreg_imagenet1k"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("KVISION_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", [CLASSIFIER, "mask_rcnn_resnet50_coco"])
def test_weights_are_what_the_table_says(
    name: str, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kvision.create(name)
    assert caplog.messages == []  # nothing begins anew, and no server was busy
    (entry,) = json.loads((home / "lock.json").read_text()).values()
    assert len(entry["sha256"]) == 64
    assert len(entry.get("revision", 40 * "0")) == 40


def test_photos_are_recognised(shared_data: Path) -> None:
    """Of a thousand classes each, one stands out: a new head gives all the same."""
    model = kvision.create(CLASSIFIER)
    photos = sorted(shared_data.glob("coco_mini/val2017/*.jpg"))[:20]
    best = [found.scores.max() for found in kvision.classify(model, photos)]
    assert np.mean(best) > 0.1
