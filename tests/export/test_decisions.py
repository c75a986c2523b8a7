"""Images of which rounding decides what patches a model keeps are not compared."""

from pathlib import Path

import keras
import numpy as np
import pytest

import kvision
from kvision.export import Parity, saved_model
from kvision.export.classifier import Classifier
from kvision.export.decisions import is_decided
from kvision.export.logits import compare_logits
from tests.export.classifier import CLASS_NAMES, region_vit, shapes, small_vit

SHAPE = {"class_names": CLASS_NAMES, "image_size": (64, 64)}


@pytest.fixture(scope="module")
def pruning() -> keras.Model:
    keras.utils.set_random_seed(1)
    return kvision.models.dynamic_vit("Lite-2/16", prune_at=(0, 1), **SHAPE)


def test_the_gap_is_that_of_the_models_own_scores(
    pruning: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = shapes(30, 64)[0]
    built = kvision.models.dynamic_vit(
        "Lite-2/16", prune_at=(0, 1), features=True, image_size=(64, 64)
    )
    built.set_weights(pruning.get_weights()[: len(built.weights)])
    outputs = built(images)
    gaps = []
    for number, kept in ((0, 11), (1, 7)):
        logits = np.sort(np.asarray(outputs[f"keep_logits_{number}"]))[:, ::-1]
        gaps.append(logits[:, kept - 1] - logits[:, kept])
        assert outputs[f"kept_{number}"].shape[1] == kept
    gaps = np.min(gaps, axis=0)
    limit = float(np.median(gaps))
    monkeypatch.setattr("kvision.export.decisions._LEAST_MARGIN", limit)
    found = is_decided(Classifier(pruning), {"images": images})
    assert 0 < found.sum() < 30
    clear = np.abs(gaps - limit) > 1e-5
    np.testing.assert_array_equal(found[clear], (gaps > limit)[clear])


def test_cells_of_equal_detail_are_undecided() -> None:
    model = region_vit(image_size=(64, 64))
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    images[1] = 90  # no detail anywhere
    regions = np.zeros((3, 3, 4), np.float32)
    # A quarter of 16 cells is fine: four that are covered decide, three do not.
    inputs = {"images": images, "regions": regions}
    assert is_decided(Classifier(model), inputs).tolist() == [True, False, True]
    regions[1, 0] = 0, 0, 32, 32
    assert is_decided(Classifier(model), inputs).all()
    regions[1, 0] = 0, 0, 48, 16
    assert not is_decided(Classifier(model), inputs)[1]


def test_models_that_keep_all_patches_are_decided() -> None:
    images = np.zeros((2, 32, 32, 3), np.uint8)
    assert is_decided(Classifier(small_vit()), {"images": images}).all()


def test_what_is_left_out_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = kvision.models.mixed_resolution_vit("Lite-2/16", **SHAPE)
    images = shapes(4, 64)[0]
    images[2] = 90
    (found, *_) = saved_model(model, tmp_path / "1", images=images).differences
    assert (found.num_images, found.num_left_out) == (3, 1)
    printed = capsys.readouterr().out
    assert "3 of 3, 1 left out" in printed
    assert "a matter of rounding" in printed


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    model = kvision.models.mixed_resolution_vit("Lite-2/16", **SHAPE)
    with pytest.raises(ValueError, match="of all 2 images the last score kept"):
        saved_model(model, tmp_path / "1", images=np.full((2, 64, 64, 3), 90.0))
    assert not list(tmp_path.iterdir())


def test_only_decided_images_are_compared() -> None:
    logits = np.random.default_rng(0).normal(0, 1, (5, 3))
    other = logits.copy()
    other[3] += [5, -5, 0]
    decided = np.arange(5) != 3
    sides = {"logits": logits}, {"logits": other}
    found = compare_logits("a", *sides, decided=decided, labels=np.zeros(5, int))
    assert (found.num_images, found.num_kept, found.num_left_out) == (4, 4, 1)
    assert found.largest == 0
    assert not found.problems
    assert compare_logits("a", *sides).problems
    table = Parity(Path("a"), 1, (found,))
    assert table.to_dict()["differences"][0]["num_left_out"] == 1
