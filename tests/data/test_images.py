"""Image files: every kind decodes as documented, every fault is named."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kvision.data.findings import DataError
from kvision.data.images import (
    fitted_size,
    framed,
    load_image,
    resample,
    resample_fast,
    resize_image,
    resized_size,
    scan_image,
)

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (5, 7, 3), np.uint8)


def save(path: Path, image: Image.Image, kind: str = "PNG", **options: Any) -> Path:
    image.save(path, kind, **options)
    return path


# By hand: what each EXIF orientation makes of stored pixels.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    path = save(tmp_path / "x", Image.fromarray(PIXELS), kind, exif=exif, **options)
    expected = UPRIGHT[orientation](PIXELS)
    np.testing.assert_array_equal(load_image(path), expected)
    info = scan_image(path)
    assert (info.height, info.width) == expected.shape[:2]


def test_exif_orientation_of_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    path = save(tmp_path / "x.jpg", Image.fromarray(pixels), "JPEG", exif=exif)
    image = load_image(path)
    assert image.shape == (32, 16, 3)
    assert image[:14].max() < 20
    assert image[18:].min() > 235
    info = scan_image(path)
    assert (info.height, info.width, info.orientation) == (32, 16, 6)


def test_jpeg_equals_tensorflow(tmp_path: Path) -> None:
    """The SavedModel decodes with TensorFlow: the same pixels, with this method."""
    pixels = RANDOM.integers(0, 256, (12, 17, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    path = save(tmp_path / "x.jpg", Image.fromarray(pixels), "JPEG", quality=70)
    decoded = tf.io.decode_jpeg(
        path.read_bytes(), channels=3, dct_method="INTEGER_ACCURATE"
    )
    np.testing.assert_array_equal(load_image(path), decoded)


def test_grey_and_alpha_and_bits(tmp_path: Path) -> None:
    grey = PIXELS[..., 0]
    three = np.repeat(grey[..., None], 3, axis=-1)
    alpha = RANDOM.integers(0, 256, (5, 7), np.uint8)
    cases = {
        "grey": (Image.fromarray(grey), three),
        "grey and alpha": (Image.fromarray(np.stack([grey, alpha], -1)), three),
        "alpha": (Image.fromarray(np.dstack([PIXELS, alpha])), PIXELS),
        "bits": (Image.fromarray(grey > 99), np.where(three > 99, 255, 0)),
        "16 bits": (Image.fromarray(grey.astype(np.uint16) * 256 + 255), three),
    }
    for name, (image, expected) in cases.items():
        path = save(tmp_path / "x.png", image)
        np.testing.assert_array_equal(load_image(path), expected, err_msg=name)


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    path = save(tmp_path / "x.png", image, transparency=0)
    np.testing.assert_array_equal(load_image(path), [[[10, 20, 30], [40, 50, 60]]])


def test_cmyk_and_16_bit_colour(tmp_path: Path) -> None:
    path = save(
        tmp_path / "x.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"
    )
    image = load_image(path)
    assert image.shape == (16, 16, 3)
    np.testing.assert_allclose(image.mean((0, 1)), [255, 0, 0], atol=8)
    wide = tf.io.encode_png(tf.constant(PIXELS.astype(np.uint16) * 256 + 7))
    (tmp_path / "y.png").write_bytes(wide.numpy())
    np.testing.assert_array_equal(load_image(tmp_path / "y.png"), PIXELS)


def test_first_frame_of_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    path = save(
        tmp_path / "x.gif", frames[0], "GIF", save_all=True, append_images=frames[1:]
    )
    np.testing.assert_array_equal(load_image(path)[0, 0], [255, 0, 0])
    assert scan_image(path).num_frames == 2


def test_bytes_count_not_names(tmp_path: Path) -> None:
    path = save(tmp_path / "Ünïcode name.jpg", Image.fromarray(PIXELS), "PNG")
    np.testing.assert_array_equal(load_image(path), PIXELS)
    assert scan_image(path).format == "PNG"


def jpeg(width: int = 48, height: int = 64) -> bytes:
    data = io.BytesIO()
    pixels = RANDOM.integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(data, "JPEG")
    return data.getvalue()


def huge_png() -> bytes:
    """The header of 20000 x 20000 pixels."""
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0)
        + b"IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


def test_bytes_behind_the_end_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    path.write_bytes(jpeg() + b"maker's notes")
    assert scan_image(path).height == 64
    assert load_image(path).shape == (64, 48, 3)


@pytest.mark.parametrize(
    ("code", "data", "message"),
    [
        ("A2", b"", "the file is empty"),
        ("A3", b"<!DOCTYPE html><html>404</html>", "it is HTML"),
        ("A3", b"\xef\xbb\xbf\n<svg xmlns=", "it is SVG"),
        ("A3", b"Please log in", "it is text: 'Please log in'"),
        ("A3", bytes(range(200, 256)), "not an image of a known format"),
        ("A9", b"\0\0\0\x18ftypheic" + b"\0" * 40, "HEIC photo.*Convert it to JPEG"),
        ("A9", b"\xff\x0a" + b"\0" * 40, "JPEG XL image"),
        ("A4", jpeg()[:300], "header is damaged"),
        ("A4", jpeg()[: len(jpeg()) // 2], "cut off"),
        ("A5", jpeg()[:-2], "has all its pixels but not the two bytes"),
        ("A10", huge_png(), "refused before decoding"),
    ],
)
def test_faults_are_named(tmp_path: Path, code: str, data: bytes, message: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(data)
    for read in (scan_image, load_image):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert [found.code for found in caught.value.findings] == [code]


def test_missing_file(tmp_path: Path) -> None:
    for read in (scan_image, load_image):
        with pytest.raises(DataError, match=r"nowhere\.jpg: no such file"):
            read(tmp_path / "nowhere.jpg")


def test_thumbnail_does_not_hide_a_cut(tmp_path: Path) -> None:
    """A JPEG's thumbnail ends with the same two bytes as a whole JPEG."""
    data = jpeg(200, 200)
    exif = b"Exif\0\0" + jpeg(16, 16)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    path = tmp_path / "x.jpg"
    path.write_bytes(data[:2] + segment + data[2:])
    assert scan_image(path).height == 200
    path.write_bytes(data[:2] + segment + data[2:-500])
    with pytest.raises(DataError, match="cut off"):
        scan_image(path)


def test_damage_inside_names_the_file(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), np.uint8)).save(data, "PNG")
    spoilt = bytearray(data.getvalue())
    spoilt[2000:2100] = bytes(100)
    path = tmp_path / "spoilt.png"
    path.write_bytes(spoilt)
    scan_image(path)
    with pytest.raises(DataError, match=r"spoilt\.png: .* cannot be decoded"):
        load_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_flipped_bytes(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a file holds: three channels, or an error that names the file."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    data = io.BytesIO()
    pixels = RANDOM.integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save(data, kind)
    original = np.frombuffer(data.getvalue(), np.uint8)
    random = np.random.default_rng(0)
    path = tmp_path / "flipped.jpg"
    outcomes, messages = set(), []
    for trial in range(120):
        spoilt = original.copy()
        # Headers, where most harm is done, are hit in every other trial.
        reach = min(64, len(spoilt)) if trial % 2 else len(spoilt)
        places = random.integers(0, reach, random.integers(1, 4))
        spoilt[places] = random.integers(0, 256, len(places))
        path.write_bytes(spoilt[: random.integers(len(spoilt) // 2, len(spoilt) + 1)])
        try:
            outcomes.add(load_image(path).shape[2:])
        except DataError as error:
            outcomes.add(())
            messages.append(str(error))
    assert outcomes <= {(), (3,)}
    assert () in outcomes
    assert all("flipped.jpg" in message for message in messages)


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    path = save(
        tmp_path / "x.tif", Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"
    )
    with pytest.raises(DataError, match=r"mode 'F'.*Scale the values"):
        load_image(path)


@pytest.mark.parametrize(
    ("size", "image_size", "expected"),
    [
        ((480, 640), (800, 1088), (800, 1067)),  # scale 5/3; 1066.67 rounds up
        ((427, 640), (256, 256), (171, 256)),  # 170.8
        ((100, 3), (50, 50), (50, 2)),  # 1.5 rounds up
        ((1, 5000), (64, 64), (1, 64)),  # never 0
        ((30, 20), (30, 20), (30, 20)),
    ],
)
def test_resize_rule(
    size: tuple[int, int], image_size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert resized_size(*size, image_size) == expected
    np.testing.assert_array_equal(
        fitted_size(tf.constant(size), image_size, "pad"), expected
    )
    assert resized_size(*size, image_size, "stretch") == image_size


def test_numbers_and_tensors_agree_on_sizes() -> None:
    sizes = RANDOM.integers(1, 3000, (200, 2))
    for height, width in sizes.tolist():
        for target in ((256, 256), (800, 1088), (33, 17)):
            np.testing.assert_array_equal(
                fitted_size(tf.constant([height, width]), target, "pad"),
                resized_size(height, width, target),
            )


def test_unknown_resize() -> None:
    with pytest.raises(ValueError, match=r'"pad" or "stretch".*crop'):
        resized_size(4, 4, (2, 2), "crop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'"pad" or "stretch".*crop'):
        resize_image(PIXELS, (2, 2), "crop")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(40, 30), (100, 90), (64, 100), (64, 48)])
@pytest.mark.parametrize("graph", [False, True])
def test_resize_image(size: tuple[int, int], graph: bool) -> None:
    pixels = RANDOM.integers(0, 256, (*size, 3), np.uint8)
    resize = tf.function(resize_image) if graph else resize_image
    image = resize(tf.constant(pixels), (64, 48), "pad")
    height, width = resized_size(*size, (64, 48))
    expected = tf.image.resize(pixels, (height, width), antialias=True)
    assert image.shape == (64, 48, 3)
    assert image.dtype == tf.uint8
    rounded = image.numpy()[:height, :width].astype(np.float32)
    np.testing.assert_allclose(rounded, expected, rtol=0, atol=0.501)
    assert not image[height:].numpy().any()
    assert not image[:, width:].numpy().any()


@pytest.mark.parametrize("size", [(40, 30), (1, 1), (30, 64), (120, 90), (64, 48)])
def test_fast_resampling_is_within_a_grey_level(size: tuple[int, int]) -> None:
    """Along one axis, along both, to a pixel, larger, and as it is."""
    pixels = tf.constant(RANDOM.integers(0, 256, (64, 48, 3), np.uint8))
    fast = tf.function(resample_fast)(pixels, tf.constant(size))
    exact = resample(pixels, tf.constant(size))
    assert fast.dtype == tf.uint8
    np.testing.assert_allclose(
        tf.cast(fast, tf.int32), tf.cast(exact, tf.int32), rtol=0, atol=1
    )


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
@pytest.mark.parametrize("first", [(0, 0), (2, 3), (3, 1)])
def test_framed(first: tuple[int, int], dtype: tf.DType) -> None:
    image = tf.cast(PIXELS, dtype)
    padding = [[first[0], 3 - first[0]], [first[1], 4 - first[1]], [0, 0]]
    result = framed(image, tf.constant(first), tf.constant([8, 11]))
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, tf.pad(image, padding))


def test_resize_by_hand() -> None:
    """Shrinking 4 to 2: a triangle of half-width 2 over centres 0.5, 1.5, ..."""
    row = np.array([0.0, 80.0, 160.0, 240.0])
    image = np.broadcast_to(row[None, :, None], (4, 4, 3)).astype(np.float32)
    weights = np.array([0.75, 0.75, 0.25])  # distances 0.5, 0.5, 1.5 of centre 1.0
    expected = (row[:3] * weights).sum() / weights.sum()
    resized = resize_image(image, (2, 2))
    assert resized.dtype == tf.float32
    np.testing.assert_allclose(resized[0, 0], expected, rtol=1e-6)
