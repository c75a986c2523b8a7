"""Curves: what is drawn, read back from matplotlib's own objects."""

import sys

import numpy as np
import pytest
from PIL import Image

from kvision import viz
from kvision.viz import curves

pytest.importorskip("matplotlib")


@pytest.fixture
def drawn(monkeypatch):
    """Axes of the figures that were drawn, by title."""
    axes = {}
    save = curves._save

    def keep(figure, path):
        axes.update({axis.get_title(): axis for axis in figure.axes})
        return save(figure, path)

    monkeypatch.setattr(curves, "_save", keep)
    return axes


def lines(axis):
    return {line.get_label(): line for line in axis.get_lines()}


def test_the_history_of_a_csv(tmp_path, drawn):
    table = tmp_path / "results.csv"
    table.write_text(
        "epoch,loss,mask_loss,val_loss,val_mask_loss,val_box_ap,val_mask_ap50,seconds\n"
        "0,2.5,1.0,2.7,1.1,0.1,0.2,9\n1,2.0,0.8,2.4,1.0,NA,nan,9\n2,1.5,0.7,2,0.9,0.3,0.4,9\n"
    )
    path = viz.plot_history(table, tmp_path / "curves.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
    assert list(drawn) == ["loss", "loss parts", "AP"]
    loss = lines(drawn["loss"])
    np.testing.assert_array_equal(loss["loss"].get_xydata()[:, 0], [1, 2, 3])
    np.testing.assert_array_equal(loss["val_loss"].get_xydata()[:, 1], [2.7, 2.4, 2])
    assert loss["loss"].get_color() == loss["val_loss"].get_color()
    assert loss["val_loss"].get_linestyle() == "--"
    np.testing.assert_array_equal(
        lines(drawn["AP"])["val_box_ap"].get_xydata(), [[1, 0.1], [3, 0.3]]
    )


def test_the_history_that_fit_returns(tmp_path, drawn):
    history = {"loss": [3.0, 2.0], "learning_rate": [0.1, 0.05]}
    viz.plot_history(history, tmp_path / "curves.png")
    assert list(drawn) == ["loss", "learning rate"]


def test_a_history_with_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match=r"among \['seconds'\]"):
        viz.plot_history({"seconds": [1.0]}, tmp_path / "curves.png")
    (tmp_path / "empty.csv").write_text("epoch,loss\n")
    with pytest.raises(ValueError, match=r"empty\.csv has no rows"):
        viz.plot_history(tmp_path / "empty.csv", tmp_path / "curves.png")


def test_precision_recall(tmp_path, drawn):
    recall = np.linspace(0, 1, 5)
    precision = {"cat": np.ones(5), "dog": np.array([1, 1, 0.5, 0, 0])}
    viz.plot_precision_recall(recall, precision, tmp_path / "pr.png", title="PR")
    assert sorted(lines(drawn["PR"])) == [
        "all 2 classes 0.750",
        "cat 1.000",
        "dog 0.500",
    ]


def test_many_classes_are_drawn_without_names(tmp_path, drawn):
    recall = np.linspace(0, 1, 5)
    precision = {str(k): np.full(5, k / 80) for k in range(80)}
    viz.plot_precision_recall(recall, precision, tmp_path / "pr.png", title="PR")
    assert len(drawn["PR"].get_lines()) == 81
    legend = drawn["PR"].get_legend().get_texts()
    assert [text.get_text() for text in legend] == ["all 80 classes 0.494"]


@pytest.mark.parametrize(
    ("normalize", "texts"), [(False, {"3", "1", "2"}), (True, {"0.75", "0.25", "1.00"})]
)
def test_the_confusion_matrix(tmp_path, drawn, normalize, texts):
    counts = [[3, 1], [2, 0]]
    viz.plot_confusion_matrix(
        counts, ["cat", "background"], tmp_path / "c.png", normalize
    )
    axis = drawn["confusion matrix"]
    assert {text.get_text() for text in axis.texts} == texts


def test_the_confusion_matrix_needs_a_name_for_each_row(tmp_path):
    with pytest.raises(ValueError, match=r"Expected counts of shape \(3, 3\)"):
        viz.plot_confusion_matrix(np.zeros((2, 2)), ["a", "b", "c"], tmp_path / "c.png")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'kvision\[viz\]'"):
        viz.plot_history({"loss": [1.0]}, tmp_path / "curves.png")
