"""NumPy's archives: arrays, never pickles, bombs refused."""

import io
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest

from kvision.weights import CheckpointError, read_checkpoint
from tests.weights.bounded import bounded

ARRAYS = {
    "params/embedding/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(3, dtype=">f8"),
    "step": np.array(7),
    "empty": np.zeros((0, 3)),
    "bool": np.array([True, False]),
}


def npy(
    header: str, data: bytes = bytes(8), version: tuple[int, int] = (1, 0)
) -> bytes:
    text = header.encode("latin-1")
    size = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + text + data


def archive(path, name="a.npy", data=b"", method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr(name, data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays(save, tmp_path):
    path = tmp_path / "weights.bin"  # the content tells, not the name
    with path.open("wb") as file:
        save(file, **ARRAYS)
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == "npz"
    assert list(checkpoint) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        array = checkpoint[name].read()
        assert checkpoint[name].shape == expected.shape
        assert array.dtype == checkpoint[name].dtype == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(array, expected)
        assert array.flags.c_contiguous


def test_bfloat16_comes_as_raw_bytes(tmp_path):
    values = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    np.savez(tmp_path / "a.npz", a=values)
    tensor = read_checkpoint(tmp_path / "a.npz")["a"]
    assert tensor.dtype == ml_dtypes.bfloat16
    assert tensor.read().tolist() == [1.5, -2.0]


def test_one_array_is_read_at_a_time(tmp_path):
    np.savez(tmp_path / "a.npz", **{f"a{i}": np.zeros(2**20) for i in range(6)})
    with bounded(megabytes=10):
        for tensor in read_checkpoint(tmp_path / "a.npz").values():
            assert tensor.read().nbytes == 2**23


@pytest.mark.parametrize(
    "array",
    [np.array([None]), np.array(["text"]), np.zeros(2, [("a", "f4")])],
    ids=["objects", "text", "records"],
)
def test_arrays_of_anything_but_numbers(array, tmp_path):
    np.savez(tmp_path / "a.npz", a=array)
    with pytest.raises(CheckpointError, match=r"a\.npy: expected numbers"):
        read_checkpoint(tmp_path / "a.npz")


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"
WRONG = {
    "too large": npy(HEADER.replace("2", "3")),
    "too small": npy(HEADER.replace("2", "1")),
    "2**62": npy(HEADER.replace("2", str(2**62))),
    "wraps to 8": npy(HEADER.replace("2,", f"{2**62 + 2}, 4")),
    "negative": npy(HEADER.replace("2,", "-1, -2")),
    "true": npy(HEADER.replace("2,", "True, 2")),
    "empty overflow": npy(HEADER.replace("2,", f"0, {2**62}, {2**62}"), b""),
    "digits": npy(HEADER.replace("2,", "9" * 5000 + ",")),
    "objects": npy(HEADER.replace("<f4", "|O")),
    "call": npy("__import__('os').system('ls')\n"),
    "deep": npy("(" * 500 + ")" * 500),
    "long": npy(HEADER[:-1] + " " * 20_000 + "\n", version=(2, 0)),
    "version 3": npy(HEADER, version=(3, 0)),
    "version 9": npy(HEADER, version=(9, 0)),
    "empty": b"",
    "text": b"text",
    "half a header": npy(HEADER)[:20],
    "claims 4 GB of header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_wrong_headers_are_refused(name, method, tmp_path):
    path = archive(tmp_path / "a.npz", data=WRONG[name], method=method)
    with bounded(), pytest.raises(CheckpointError):
        read_checkpoint(path)["a"].read()


def test_a_sound_header_of_the_same_form(tmp_path):
    path = archive(tmp_path / "a.npz", data=npy(HEADER))
    assert read_checkpoint(path)["a"].read().tolist() == [0.0, 0.0]


def test_a_zip_bomb_is_refused_before_it_grows(tmp_path):
    content = npy(HEADER.replace("2", str(2**25)), bytes(2**27))
    path = archive(tmp_path / "a.npz", data=content, method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    with bounded(megabytes=4), pytest.raises(CheckpointError, match="claims 134217"):
        read_checkpoint(path)


@pytest.mark.parametrize("claimed", [1, 127, 129, 2**26])
def test_an_entry_of_another_size_than_it_claims(claimed, tmp_path):
    data = npy(HEADER.ljust(110))
    assert len(data) == 128
    path = archive(tmp_path / "a.npz", data=data, method=zipfile.ZIP_DEFLATED)
    true_size = (128).to_bytes(4, "little")
    path.write_bytes(
        path.read_bytes().replace(true_size, claimed.to_bytes(4, "little"))
    )
    with bounded(megabytes=4), pytest.raises(CheckpointError):
        read_checkpoint(path)["a"].read()


def test_names_are_never_paths(tmp_path):
    path = archive(tmp_path / "a.npz", "../../outside.npy", npy(HEADER))
    assert list(read_checkpoint(path)) == ["../../outside"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_entries_of_one_name(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", npy(HEADER))
        file.writestr("b.npy", npy(HEADER))
    path.write_bytes(path.read_bytes().replace(b"b.npy", b"a.npy"))
    with pytest.raises(CheckpointError, match="same name"):
        read_checkpoint(path)


def test_entries_that_share_their_bytes(tmp_path):
    """How 42 kB grow to petabytes."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name in "abc":
            file.writestr(f"{name}.npy", npy(HEADER, bytes(1000)))
    content = bytearray(path.read_bytes())
    for found in range(len(content)):
        if content[found : found + 4] == b"PK\x01\x02":
            content[found + 42 : found + 46] = bytes(4)  # all at the first one's place
            content[found + 20 : found + 28] = 2 * (3000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="overlap"):
        read_checkpoint(path)


def test_an_encrypted_entry(tmp_path):
    path = archive(tmp_path / "a.npz", data=npy(HEADER))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="encrypted"):
        read_checkpoint(path)


def test_damaged_values_do_not_fit_their_checksum(tmp_path):
    path = archive(tmp_path / "a.npz", data=npy(HEADER))
    path.write_bytes(path.read_bytes().replace(bytes(8), bytes(7) + b"x"))
    with pytest.raises(CheckpointError, match="checksum"):
        read_checkpoint(path)["a"].read()


def test_other_archives(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("a.npy", npy(HEADER))
    path = archive(tmp_path / "a.zip", "weights.npz", packed.getvalue())
    with pytest.raises(CheckpointError, match="unpack it first"):
        read_checkpoint(path)
    path = archive(tmp_path / "a.keras", "model.weights.h5", zlib.compress(b""))
    with pytest.raises(CheckpointError, match="load_model"):
        read_checkpoint(path)
