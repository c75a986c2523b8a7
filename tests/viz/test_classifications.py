"""Bars of scores beside a photo, and the curves of classifiers."""

import sys

import numpy as np
import pytest
from PIL import Image

from kvision import evaluation, viz
from kvision.viz import curves
from kvision.viz.detections import class_color


@pytest.fixture
def axes(monkeypatch):
    """Axes of the figures that were drawn."""
    pytest.importorskip("matplotlib")
    found = []
    save = curves._save

    def keep(figure, path):
        found.extend(figure.axes)
        return save(figure, path)

    monkeypatch.setattr(curves, "_save", keep)
    return found


def test_bars_are_as_long_as_scores():
    picture = viz.draw_scores(
        np.zeros((600, 300, 3), np.uint8), ["cat", "dog", "cow"], [0.8, 0.2, 0.0]
    )
    pixels = np.asarray(picture)[:, 300:].reshape(-1, 3)
    lengths = [np.all(pixels == class_color(k), axis=1).sum() for k in range(3)]
    assert lengths[0] / lengths[1] == pytest.approx(4, rel=0.05)
    assert lengths[2] == 0
    assert picture.height == 600


def test_many_long_names_find_room():
    names = [f"a class with quite a long name, number {n}" for n in range(30)]
    picture = viz.draw_scores(Image.new("L", (64, 64)), names, np.full(30, 1 / 30))
    pixels = np.asarray(picture).astype(int)
    # The photo, eight times enlarged, and nothing cut off at the right or below.
    assert not pixels[:512, :512].any()
    assert (pixels[:, -3:] == 255).all()
    assert (pixels[-3:] == 255).all()
    assert picture.height > 512


def test_names_and_scores_go_together():
    with pytest.raises(ValueError, match="2 names for 1 scores"):
        viz.draw_scores(np.zeros((8, 8, 3), np.uint8), ["a", "b"], [0.5])


def test_calibration_is_drawn_with_its_bins(tmp_path, axes):
    logits = np.log([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    bins = evaluation.calibration(logits, np.array([0, 0, 0, 1, 1, 1]), num_bins=10)
    path = viz.plot_calibration(bins, tmp_path / "calibration.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
    model = {line.get_label(): line for line in axes[0].get_lines()}["model"]
    np.testing.assert_allclose(model.get_xydata(), [[0.6, 1], [0.9, 0.75]])
    assert "0.233" in axes[0].get_title()
    assert [bar.get_height() for bar in axes[1].patches] == bins["counts"]


def test_roc_curves_are_drawn_with_their_areas(tmp_path, axes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    logits = rng.normal(size=(60, 3))
    names = ["a", "b", "c"]
    found = evaluation.roc_curves(logits, labels, names)
    areas = dict(zip(names, evaluation.area_under_roc(logits, labels), strict=True))
    viz.plot_roc(found, areas, tmp_path / "roc.png")
    lines = {line.get_label(): line for line in axes[0].get_lines()}
    for name in names:
        line = lines[f"{name} {areas[name]:.3f}"].get_xydata()
        np.testing.assert_array_equal(line, np.stack(found[name], axis=1))
    assert f"{np.mean(list(areas.values())):.3f}" in axes[0].get_title()


def test_without_curves_there_is_an_empty_drawing(tmp_path, axes):
    viz.plot_roc({}, {}, tmp_path / "roc.png")
    assert "nan" in axes[0].get_title()


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"kvision\[viz\]"):
        viz.plot_roc({}, {}, tmp_path / "roc.png")
