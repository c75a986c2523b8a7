"""HDF5: Keras' files; nothing outside of the file, nothing compressed."""

import h5py
import keras
import numpy as np
import pytest

from kvision.weights import CheckpointError, read_checkpoint
from tests.weights.bounded import bounded


@pytest.fixture
def write(tmp_path):
    """Return a function that fills a file by a function and gives its path."""

    def write_file(fill, **options):
        path = tmp_path / "weights.bin"  # the content tells, not the name
        with h5py.File(path, "w", **options) as file:
            fill(file)
        return path

    return write_file


def matterport(file):
    """Lay out a file as matterport's mask_rcnn_coco.h5."""
    file.attrs["layer_names"] = [b"conv1", b"rpn_model"]
    file["conv1/conv1/kernel:0"] = np.arange(12, dtype="f4").reshape(1, 2, 2, 3)
    file["conv1/conv1/bias:0"] = np.arange(3, dtype=">f8")
    file["rpn_model/rpn_conv_shared/kernel:0"] = np.float16(2.5)
    file["rpn_model/flags"] = np.array([True, False])
    file["rpn_model/empty"] = np.zeros((0, 3), "f4")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_datasets(write, libver):
    checkpoint = read_checkpoint(write(matterport, libver=libver))
    assert checkpoint.format == "hdf5"
    assert {name: tensor.shape for name, tensor in checkpoint.items()} == {
        "conv1/conv1/bias": (3,),
        "conv1/conv1/kernel": (1, 2, 2, 3),
        "rpn_model/empty": (0, 3),
        "rpn_model/flags": (2,),
        "rpn_model/rpn_conv_shared/kernel": (),
    }
    kernel = checkpoint["conv1/conv1/kernel"].read()
    assert (kernel.dtype, kernel.ravel().tolist()) == (np.float32, list(range(12)))
    bias = checkpoint["conv1/conv1/bias"].read()
    assert (bias.dtype, bias.dtype.isnative, bias.tolist()) == ("f8", True, [0, 1, 2])
    assert checkpoint["rpn_model/rpn_conv_shared/kernel"].read() == 2.5
    assert checkpoint["rpn_model/flags"].read().tolist() == [True, False]
    assert checkpoint["rpn_model/empty"].read().shape == (0, 3)


@pytest.mark.parametrize("name", ["model.weights.h5", "model.h5"])
def test_files_of_keras(tmp_path, name):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="head")])
    path = tmp_path / name
    model.save(path) if name == "model.h5" else model.save_weights(path)
    checkpoint = read_checkpoint(path)
    kernels = [tensor for tensor in checkpoint.values() if tensor.shape == (3, 2)]
    np.testing.assert_array_equal(
        kernels[0].read(), model.get_weights()[0], strict=True
    )


def test_one_dataset_is_read_at_a_time(write):
    path = write(
        lambda file: [file.create_dataset(n, data=np.zeros(2**20)) for n in "abc"]
    )
    with bounded(megabytes=10):
        for tensor in read_checkpoint(path).values():
            assert tensor.read().nbytes == 2**23


def external_link(file):
    file["a"] = h5py.ExternalLink("other.h5", "/a")


def soft_link(file):
    file["b/a"] = np.ones(2)
    file["a"] = h5py.SoftLink("/b/a")


def external_storage(file):
    file.create_dataset("a", (2,), "f4", external=[("/etc/passwd", 0, 8)])


def virtual(file):
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "a", (2,))
    file.create_virtual_dataset("a", layout)


def text(file):
    file["a"] = "text"


def fixed_text(file):
    file["a"] = np.array([b"text"])


def references(file):
    file["a"] = np.ones(2)
    file.create_dataset("b", data=[file["a"].ref], dtype=h5py.ref_dtype)


def records(file):
    file["a"] = np.zeros(2, [("x", "f4")])


def nothing(file):
    file["a"] = h5py.Empty("f4")


def named_type(file):
    file["a"] = np.dtype("f4")


def chunks(file):
    file.create_dataset("a", data=np.zeros(1000), chunks=(10,))


def compressed(file):
    file.create_dataset("a", (2**40,), "f4", compression="gzip")


def never_written(file):
    file.create_dataset("a", (2**40,), "f4")


def loop(file):
    file["a/b/c"] = np.ones(2)
    file["a/b/d"] = file["a"]


def deep(file):
    file["/".join("a" * 100)] = np.ones(2)


def same_name(file):
    file["a"] = file["a:0"] = np.ones(2)


def strange_float(file):
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(100)
    space = h5py.h5s.create_simple((2,))
    h5py.h5d.create(file.id, b"a", kind, space).write(
        h5py.h5s.ALL, h5py.h5s.ALL, np.ones(2, "f4")
    )


@pytest.mark.parametrize(
    ("fill", "word"),
    [
        (external_link, "is a link"),
        (soft_link, "is a link"),
        (external_storage, "in another file"),
        (virtual, "in another file"),
        (text, "expected numbers"),
        (fixed_text, "expected numbers"),
        (references, "expected numbers"),
        (records, "expected numbers"),
        (nothing, "dataset of numbers"),
        (named_type, "dataset of numbers"),
        (chunks, "without chunks"),
        (compressed, "without chunks"),
        (never_written, "expected 4398046511104 bytes"),
        (loop, "in each other"),
        (deep, "nested too deeply"),
        (same_name, "the same name"),
        (strange_float, "stored as no float"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_other_files_are_refused(write, fill, word):
    path = write(fill)
    with bounded(), pytest.raises(CheckpointError, match=word) as refusal:
        read_checkpoint(path)
    assert str(refusal.value).startswith(f"{path}: ")


def test_a_truncated_file(write):
    path = write(matterport)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="no whole HDF5 file"):
        read_checkpoint(path)
