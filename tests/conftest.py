"""Fixtures for every test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.weights.file_server import FileServer, serving

# Read by TensorFlow and matplotlib when they are imported, so set before that.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def seed() -> None:
    """Make Python, NumPy, TensorFlow and Keras start every test alike."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data (not in the repository); the test is skipped without it."""
    folder = Path(os.environ.get("KVISION_SHARED", REPOSITORY.parent / "shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set KVISION_SHARED to its folder)")
    return folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serve files on this machine, as the hub does too; nothing is fetched yet."""
    monkeypatch.setenv("KVISION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    with serving() as files:
        monkeypatch.setenv("HF_ENDPOINT", files.url)
        yield files


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Collect the pauses between downloads instead of making them."""
    from kvision.weights import retrying

    seconds: list[float] = []
    monkeypatch.setattr(retrying, "_sleep", seconds.append)
    return seconds
