"""Files cut and changed at 300 places: the right answer or a refusal, nothing else."""

import pickle
import random
from pathlib import Path

import h5py
import numpy as np
import pytest

from kvision.weights import CheckpointError, read_checkpoint, write_safetensors
from tests.weights.bounded import bounded

GOLDEN = Path(__file__).parent / "golden"
PLACES = 300
ARRAYS = {
    "params/kernel": np.arange(24, dtype=np.float32).reshape(4, 6),
    "params/bias": np.arange(5, dtype=np.float16),
    "step": np.array(3),
}


def write_npz(path):
    with path.open("wb") as file:
        np.savez(file, **ARRAYS)


def write_compressed_npz(path):
    with path.open("wb") as file:
        np.savez_compressed(file, **ARRAYS)


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            file[name] = array


def write_pickle(path):
    path.write_bytes(pickle.dumps({"model": ARRAYS}))


FILES = {
    "safetensors": lambda path: write_safetensors(path, ARRAYS, {"a": "b"}),
    "npz": write_npz,
    "compressed npz": write_compressed_npz,
    "pickle": write_pickle,
    "hdf5": write_hdf5,
    "torch": lambda path: path.write_bytes((GOLDEN / "training.pth").read_bytes()),
    "legacy torch": lambda path: path.write_bytes((GOLDEN / "legacy.pth").read_bytes()),
}
# Archives have checksums: what is read is what was written. The others cannot know.
WITH_CHECKSUMS = ("npz", "compressed npz", "torch")


def damaged(content: bytes, random_numbers: random.Random) -> bytes:
    """Cut the content, flip a bit of it, or change up to eight bytes."""
    kind = random_numbers.randrange(3)
    place = random_numbers.randrange(len(content))
    if kind == 0:
        return content[:place]
    changed = bytearray(content)
    if kind == 1:
        changed[place] ^= 1 << random_numbers.randrange(8)
        return bytes(changed)
    for _ in range(random_numbers.randint(1, 8)):
        value = random_numbers.choice([0, 127, 128, 255, random_numbers.randrange(256)])
        changed[random_numbers.randrange(len(content))] = value
    return bytes(changed)


def values(path: Path) -> dict[str, np.ndarray]:
    return {name: tensor.read() for name, tensor in read_checkpoint(path).items()}


def values_or_none(path: Path) -> dict[str, np.ndarray] | None:
    try:
        return values(path)
    except CheckpointError:
        return None


@pytest.mark.parametrize("kind", FILES)
def test_damage(kind, tmp_path):
    path = tmp_path / "file"
    FILES[kind](path)
    content, expected = path.read_bytes(), values(path)
    random_numbers = random.Random(0)
    refused = 0
    with bounded(megabytes=4, seconds=300):
        for _ in range(PLACES):
            path.write_bytes(damaged(content, random_numbers))
            found = values_or_none(path)
            refused += found is None
            if kind in WITH_CHECKSUMS:
                for name in set(found or ()) & set(expected):
                    np.testing.assert_array_equal(found[name], expected[name])
    assert refused > PLACES / 4  # every third is cut
