"""EXIF orientation in a graph against Pillow, and files that lie."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from kvision.export.orientation import exif_orientation, upright

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def exif(orientation: int, order: str = "<", other_entries: int = 2) -> bytes:
    """A TIFF structure whose first directory holds the orientation last."""
    mark = b"II" if order == "<" else b"MM"
    entries = b"".join(
        struct.pack(f"{order}HHII", 0x0100 + i, 4, 1, 99) for i in range(other_entries)
    )
    entries += struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    directory = struct.pack(f"{order}H", other_entries + 1) + entries + bytes(4)
    return mark + struct.pack(f"{order}HI", 42, 8) + directory


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg(*segments: bytes) -> bytes:
    """A JPEG file with these segments ahead of its own."""
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG")
    return file.getvalue()[:2] + b"".join(segments) + file.getvalue()[2:]


def read(contents: bytes) -> int:
    return int(tf.function(exif_orientation)(tf.constant(contents)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation: int, order: str) -> None:
    contents = jpeg(segment(0xE1, b"Exif\0\0" + exif(orientation, order)))
    with Image.open(io.BytesIO(contents)) as image:
        assert image.getexif()[0x0112] == orientation
    assert read(contents) == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_pillow_turns(orientation: int) -> None:
    image = Image.fromarray(PIXELS)
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(upright(PIXELS, tf.constant(orientation)), expected)


def test_behind_other_segments() -> None:
    others = [
        segment(0xE0, b"JFIF\0" + bytes(9)),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"x" * 60000),
        segment(0xE2, b"ICC_PROFILE\0" + bytes(3000)),
    ]
    assert read(jpeg(*others, segment(0xE1, b"Exif\0\0" + exif(6)))) == 6


def test_of_pillow_and_of_no_exif() -> None:
    file = io.BytesIO()
    settings = Image.Exif()
    settings[0x0112] = 8
    settings[0x010F] = "a camera"
    Image.fromarray(PIXELS).save(file, "JPEG", exif=settings)
    assert read(file.getvalue()) == 8
    assert read(jpeg()) == 1
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    assert read(file.getvalue()) == 1


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"\xff",
        b"\xff\xd8",
        b"\xff\xd8\xff\xe1",
        b"\xff\xd8\xff\xe1\x00\x00Exif\0\0II",
        jpeg(segment(0xE1, b"Exif\0\0" + exif(0))),
        jpeg(segment(0xE1, b"Exif\0\0" + exif(9))),
        jpeg(segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f")),
        jpeg(segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")),
        jpeg(segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff")),
        jpeg(segment(0xE1, b"Exif\0\0" + exif(6))[:20]),
    ],
    ids=range(11),
)
def test_files_that_lie_are_upright(contents: bytes) -> None:
    assert read(contents) == 1
