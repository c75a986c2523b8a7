"""Pictures put together and written."""

import numpy as np
import pytest
from PIL import Image

from kvision import viz


def plain(height, width, color):
    return np.full((height, width, 3), color, np.uint8)


def test_side_by_side_keeps_both_pictures_whole():
    red, blue = (250, 0, 0), (0, 0, 250)
    panel = np.asarray(viz.side_by_side(plain(50, 70, red), plain(50, 70, blue)))
    assert (panel == red).all(axis=2).sum() == 50 * 70
    assert (panel == blue).all(axis=2).sum() == 50 * 70
    columns_left = np.flatnonzero((panel == red).all(axis=2).any(axis=0))
    columns_right = np.flatnonzero((panel == blue).all(axis=2).any(axis=0))
    assert columns_left.max() < columns_right.min()


def test_a_mosaic_is_about_square_and_holds_every_picture():
    pictures = [plain(20, 30, 10 + k) for k in range(5)]
    page = np.asarray(viz.mosaic(pictures))
    for k in range(5):
        assert (page == 10 + k).all(axis=2).sum() == 20 * 30
    # 3 columns and 2 rows with gaps of 4.
    assert page.shape == (2 * 24 + 4, 3 * 34 + 4, 3)


def test_pictures_shrink_to_their_tile_and_keep_their_shape():
    page = np.asarray(viz.mosaic([plain(100, 50, 0)], tile_size=(40, 40)))
    rows, columns = np.nonzero((page == 0).all(axis=2))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (40, 20)


def test_captions_need_their_pictures():
    with pytest.raises(ValueError, match="2 captions for 1 pictures"):
        viz.mosaic([plain(9, 9, 0)], captions=["a", "b"])
    with pytest.raises(ValueError, match="at least one picture"):
        viz.mosaic([])


def test_pictures_are_written_whole(tmp_path):
    path = viz.save_picture(plain(8, 9, 50), tmp_path / "new folder" / "a.png")
    with Image.open(path) as image:
        assert image.size == (9, 8)
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]
    viz.save_picture(Image.new("RGBA", (3, 4)), path.with_name("a.jpg"))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = viz.save_picture(plain(8, 9, 50), tmp_path / "a.png")
    before = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        viz.save_picture(plain(8, 9, 99), path)
    assert path.read_bytes() == before


def test_an_unknown_format_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"a\.pgn: no picture format ends in '\.pgn'"):
        viz.save_picture(plain(3, 3, 0), tmp_path / "a.pgn")
