"""Writes weight files that no program writes: pickles byte for byte."""

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

MAGIC = 0x1950A86A20F9469CFC6C


def plain(value: Any) -> bytes:
    """Return the steps that put plain values on the stack of a pickle machine."""
    return pickle.dumps(value, 2)[2:-1]


def text(value: str) -> bytes:
    """Return the step that puts text on the stack, without a memo as `plain` has."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


def program(steps: bytes) -> bytes:
    return b"\x80\x02" + steps + b"."


def named(name: str, steps: bytes) -> bytes:
    """Return the pickle of a dict with one item, whose value the steps make."""
    return program(b"}" + plain(name) + steps + b"s")


def call(function: str, *arguments: bytes) -> bytes:
    module, _, name = function.rpartition(".")
    return f"c{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR"


def storage(count: int = 4, kind: str = "torch.FloatStorage", key: Any = "0") -> bytes:
    module, _, name = kind.rpartition(".")
    kind_steps = f"c{module}\n{name}\n".encode()
    return (
        b"(" + plain("storage") + kind_steps + plain(key) + plain("cpu") + plain(count)
    ) + b"tQ"


def view(
    shape: Any, strides: Any, offset: Any = 0, stored: bytes | None = None
) -> bytes:
    """Return the steps of a tensor of torch."""
    return call(
        "torch._utils._rebuild_tensor_v2",
        storage() if stored is None else stored,
        *(plain(value) for value in (offset, shape, strides, False, None)),
    )


def torch_zip(path: Path, content: bytes, **entries: bytes) -> Path:
    """Write an archive of torch with four floats as storage 0."""
    files = {"data.pkl": content, "byteorder": b"little", "version": b"3"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**files, "data/0": bytes(16), **entries}.items():
            archive.writestr(f"archive/{name}", data)
    return path


def legacy_torch(path: Path, content: bytes, little_endian: bool = True) -> Path:
    """Write a file of torch before 1.6 with four floats as storage "0"."""
    system = {"protocol_version": 1001, "little_endian": little_endian}
    begin = [pickle.dumps(value, 2) for value in (MAGIC, 1001, system)]
    end = pickle.dumps(["0"], 2) + struct.pack("<q", 4) + bytes(16)
    path.write_bytes(b"".join(begin) + content + end)
    return path


def plain_pickle(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
