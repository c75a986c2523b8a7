"""Writing leaves the old or the new, never a half."""

from pathlib import Path

import pytest

from kvision.export.files import new_folder, write_file


def test_file_is_replaced_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a/b/model.tflite"
    for content in (b"old", b"new"):
        write_file(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_failing_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")

    def fill_the_disk(self: Path, content: bytes) -> None:
        with open(self, "wb") as file:
            file.write(content[:1])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_takes_its_place_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "shapes/1"
    with new_folder(path, overwrite=False) as folder:
        (folder / "first").touch()
        assert not path.exists()
        # TF Serving must not take it for a version.
        assert not folder.name.isdecimal()
    with new_folder(path, overwrite=True) as folder:
        (folder / "second").touch()
        assert (path / "first").exists()
    assert [file.name for file in path.iterdir()] == ["second"]
    assert list(path.parent.iterdir()) == [path]


def test_failing_block_keeps_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "1"
    path.mkdir()
    (path / "first").touch()

    def fail() -> None:
        with new_folder(path, overwrite=True) as folder:
            (folder / "second").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [file.name for file in path.iterdir()] == ["first"]
    assert list(tmp_path.iterdir()) == [path]
