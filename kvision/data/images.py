"""Image files: what their header says, their pixels as RGB, the one rule of resizing.

Every image of kvision goes through `load_image`, in training pipelines (inside a
`tf.numpy_function`) and in prediction alike. So EXIF orientation, grey, palette,
16-bit and CMYK files mean the same everywhere, and an error always names its file,
which TensorFlow's own decoders cannot do. Decoding releases Python's lock and takes
as long as TensorFlow's decoders do, to whose pixels it is equal.

Rules: always 3 channels; alpha is ignored (the colours stored beneath it are used);
the high byte of 16-bit values; the first frame of an animation; EXIF orientation
applied.
"""

import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image, UnidentifiedImageError

from kvision.data.findings import DataError, Finding

__all__ = ["ImageInfo", "load_image", "resize_image", "resized_size", "scan_image"]

Resize = Literal["pad", "stretch"]

# Pillow has dozens of readers; these are the ones whose files people train on.
_FORMATS = ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"]
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK"}
_MODES |= {"YCbCr", "I;16", "I;16L", "I;16B", "I;16N"}
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# How other files begin: (offset, bytes, what it is).
_SIGNATURES = [
    (4, b"ftypheic", "a HEIC photo"),
    (4, b"ftypheix", "a HEIC photo"),
    (4, b"ftypmif1", "a HEIF photo"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftyp", "an MP4 video"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (4, b"JXL ", "a JPEG XL image"),
    (4, b"jP  ", "a JPEG 2000 image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (128, b"DICM", "a DICOM image"),
]
_CONVERT = "Convert it to JPEG or PNG."
_REPLACE = "Fetch the file again or take it out of the data."
_TAIL = 65536


@dataclass(frozen=True)
class ImageInfo:
    """What the header of an image file says.

    Attributes:
        path: the file.
        format: Pillow's name of its format: "JPEG", "PNG", ...
        mode: Pillow's name of its pixels: "RGB", "L", "I;16", ...
        height: in pixels, after EXIF orientation.
        width: in pixels, after EXIF orientation.
        orientation: EXIF orientation, 1 to 8; 1 where there is none.
        num_frames: 1, or more in an animation.
    """

    path: str
    format: str
    mode: str
    height: int
    width: int
    orientation: int = 1
    num_frames: int = 1


def scan_image(path: str | os.PathLike[str]) -> ImageInfo:
    """Read the header of an image file and look whether its end is there.

    No pixel is decoded. Files above twice `PIL.Image.MAX_IMAGE_PIXELS` are refused, so
    that a small file cannot fill the memory.

    Args:
        path: the file.

    Returns:
        Size, format, mode and orientation.

    Raises:
        DataError: the file is missing, empty, not an image of a known format, too
            large, cut off, or of pixels that are no picture (32-bit, float).
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            return _scan(path, file)
    except (FileNotFoundError, NotADirectoryError):
        remedy = "Check the path; of a data set, the image folder and `file_name`."
        _fail("A1", path, "no such file", remedy)
    except OSError as error:
        _fail("A1", path, f"cannot be read ({error})", "Check its permissions.")


def load_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Decode an image file to RGB, upright.

    Args:
        path: file in JPEG, PNG, BMP, GIF, WebP, TIFF or PPM format.

    Returns:
        (H, W, 3) uint8 array, by the rules at the top of this file.

    Raises:
        DataError: as `scan_image`, or the file is damaged inside.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file, Image.open(file, formats=_FORMATS) as image:
            orientation = _orientation(image)
            return _upright_rgb(image, orientation)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever they trip over
        scan_image(path)  # says more precisely what is wrong, if the header shows it
        message = f"the file is damaged, its pixels cannot be decoded ({error})"
        _fail("A4", path, message, _REPLACE)


def resized_size(
    height: int, width: int, image_size: tuple[int, int], resize: Resize = "pad"
) -> tuple[int, int]:
    """Compute the size to which an image is resampled before it is padded.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        image_size: (height, width) of the model's input in pixels.
        resize: "pad" keeps the aspect ratio, "stretch" fills the input.

    Returns:
        (height, width) in pixels, each at least 1 and at most that of `image_size`.
    """
    if resize == "stretch":
        return image_size
    if resize != "pad":
        raise ValueError(f'resize must be "pad" or "stretch". Received: {resize!r}')
    scale = min(image_size[0] / height, image_size[1] / width)
    return (
        max(1, math.floor(height * scale + 0.5)),
        max(1, math.floor(width * scale + 0.5)),
    )


def resize_image(
    image: Any, image_size: tuple[int, int], resize: Resize = "pad"
) -> tf.Tensor:
    """Resample an image to the model's input size; pad with 0 at the bottom and right.

    Bilinear with half-pixel centres, the filter widened when the image shrinks, as
    `tf.image.resize(..., antialias=True)`.

    Args:
        image: (h, w, 3) array or tensor, uint8 or float in 0..255.
        image_size: (height, width) of the result in pixels.
        resize: "pad" keeps the aspect ratio, "stretch" does not.

    Returns:
        (H, W, 3) tensor of the dtype of `image`; integers are rounded.
    """
    image = tf.convert_to_tensor(image)
    size = _resized_size_tensor(tf.shape(image)[:2], image_size, resize)
    image = framed(resample(image, size), tf.zeros_like(size), tf.constant(image_size))
    image.set_shape((*image_size, 3))
    return image


def resample(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resample (h, w, C) to `size`, an int32 tensor (height, width); keep the dtype."""
    return _resample(image, size, _resize_wide)


def resample_fast(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resample (h, w, 3) within one grey level of `resample`; uint8 only.

    Where it shrinks Pillow does it, in half to four fifths of the time; not for graphs
    that are saved.
    """

    def shrink(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        shrunk = tf.numpy_function(_shrink, [image, size], tf.uint8)
        return tf.ensure_shape(shrunk, (None, None, 3))

    return _resample(image, size, shrink)


def _resample(
    image: tf.Tensor,
    size: tf.Tensor,
    shrink: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    old = tf.shape(image)[:2]
    return tf.cond(
        tf.reduce_all(size == old),
        lambda: tf.identity(image),
        # Where nothing shrinks the wide filter is the plain one, which is much faster.
        lambda: tf.cond(
            tf.reduce_all(size >= old),
            lambda: cast_back(tf.image.resize(image, size), image.dtype),
            lambda: shrink(image, size),
        ),
    )


def _resize_wide(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    resized = tf.image.resize(image, size, antialias=True)
    return cast_back(resized, image.dtype)


def _shrink(image: np.ndarray, size: np.ndarray) -> np.ndarray:
    height, width = size.tolist()
    shrunk = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(shrunk)


def cast_back(values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Cast computed values to the dtype they came from, integers rounded."""
    return tf.cast(values if dtype.is_floating else tf.round(values), dtype)


def framed(image: tf.Tensor, first: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Lay an image on a black one, by copying.

    Where the image becomes wider `tf.pad` takes four times as long.

    Args:
        image: (h, w, C) tensor.
        first: (2,) int32 tensor: row and column of its first pixel.
        size: (2,) int32 tensor: height and width of the result.

    Returns:
        (H, W, C) tensor.
    """
    height, width, channels = tf.unstack(tf.shape(image))
    top, left = tf.unstack(first)
    bottom, right = tf.unstack(size - first - [height, width])

    def black(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
        return tf.zeros(tf.stack([rows, columns, channels]), image.dtype)

    rows = [black(height, left), image, black(height, right)]
    image = tf.concat(rows, axis=1)
    rows = [black(top, size[1]), image, black(bottom, size[1])]
    return tf.concat(rows, axis=0)


def fitted_size(
    size: tf.Tensor, image_size: tuple[int, int], resize: Resize
) -> tf.Tensor:
    """Compute `resized_size` of a (2,) tensor (height, width); int32."""
    return _resized_size_tensor(size, image_size, resize)


def _resized_size_tensor(
    size: tf.Tensor, image_size: tuple[int, int], resize: Resize
) -> tf.Tensor:
    if resize == "stretch":
        return tf.constant(image_size, tf.int32)
    if resize != "pad":
        raise ValueError(f'resize must be "pad" or "stretch". Received: {resize!r}')
    size = tf.cast(size, tf.float64)
    scale = tf.reduce_min(tf.constant(image_size, tf.float64) / size)
    return tf.maximum(tf.cast(tf.floor(size * scale + 0.5), tf.int32), 1)


def _scan(path: str, file: BinaryIO) -> ImageInfo:
    head = file.read(256)
    if not head:
        _fail("A2", path, "the file is empty", _REPLACE)
    file.seek(0)
    try:
        with Image.open(file, formats=_FORMATS) as image:
            _refuse_mode(path, image.mode)
            orientation = _orientation(image)
            info = _info(path, image, orientation)
            _refuse_cut_off(path, info.format, file)
            return info
    except UnidentifiedImageError:
        _refuse_unknown(path, head)
    except Image.DecompressionBombError as error:
        _fail(
            "A10",
            path,
            f"refused before decoding: {error}",
            "Shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file.",
        )
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise whatever they trip over
        _fail("A4", path, f"the header is damaged ({error})", _REPLACE)


def _info(path: str, image: Image.Image, orientation: int) -> ImageInfo:
    width, height = image.size
    if orientation >= 5:
        width, height = height, width
    animated = image.format in ("GIF", "WEBP", "TIFF", "PNG")
    frames = getattr(image, "n_frames", 1) if animated else 1
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    return ImageInfo(path, kind, image.mode, height, width, orientation, frames)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation of an image of which only the header has been read."""
    if image.format == "TIFF":
        return 1  # Pillow turns TIFF files itself
    if image.format == "PNG" and not {"exif", "xmp"} & image.info.keys():
        return 1  # asking further would decode all of it
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in _TRANSPOSE else 1


def _upright_rgb(image: Image.Image, orientation: int) -> np.ndarray:
    if image.mode not in _MODES:
        raise ValueError(image.mode)
    if image.mode.startswith("I;16"):
        high = (np.asarray(image) >> 8).astype(np.uint8)
        image = Image.fromarray(high)
    if image.mode in ("PA", "La", "RGBa"):
        image = image.convert("RGBA")
    if image.mode != "RGB":
        # Pillow leaves alpha out here, as decode_png(channels=3) does.
        image = image.convert("RGB")
    if orientation != 1:
        image = image.transpose(_TRANSPOSE[orientation])
    return np.array(image)


def _refuse_mode(path: str, mode: str) -> None:
    if mode not in _MODES:
        _fail(
            "A8",
            path,
            f"pixels of Pillow's mode {mode!r} are not a picture of 8 or 16 bits",
            "Scale the values to 0..255 and save as PNG.",
        )


def _refuse_unknown(path: str, head: bytes) -> NoReturn:
    for offset, start, kind in _SIGNATURES:
        if head[offset : offset + len(start)] == start:
            _fail("A9", path, f"unsupported, it is {kind}", _CONVERT)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg", b"<head")):
        kind = "SVG" if b"<svg" in text else "HTML or XML"
        _fail("A3", path, f"not an image, it is {kind}", _REPLACE)
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head):
        line = head[:40].decode("ascii")
        _fail("A3", path, f"not an image, it is text: {line!r}", _REPLACE)
    known = ", ".join(_FORMATS)
    _fail(
        "A3",
        path,
        f"not an image of a known format ({known}); it begins with {head[:8]!r}",
        _REPLACE,
    )


def _refuse_cut_off(path: str, kind: str, file: BinaryIO) -> None:
    """Look for the mark that ends a file of this format."""
    length = file.seek(0, os.SEEK_END)
    # Phones append data of their own, so the mark need not be the last bytes.
    file.seek(max(0, length - _TAIL))
    tail = file.read()
    if kind == "JPEG":
        # A thumbnail in the header ends too, but before the last scan starts.
        complete = tail.rfind(b"\xff\xd9") > tail.rfind(b"\xff\xda")
    elif kind == "PNG":
        complete = b"IEND" in tail
    elif kind == "WEBP":
        file.seek(4)
        complete = length >= int.from_bytes(file.read(4), "little") + 8
    else:
        return
    if complete:
        return
    if kind == "JPEG" and _is_whole_without_end(path):
        _fail(
            "A5",
            path,
            "the JPEG has all its pixels but not the two bytes that end it",
            "Repair a copy: append the bytes FF D9.",
        )
    _fail("A4", path, f"the {kind} is cut off, its end is missing", _REPLACE)


def _is_whole_without_end(path: str) -> bool:
    """Whether a JPEG decodes to its last line although its end marker is missing.

    Bytes appended to a whole picture change nothing; behind a cut they are decoded.
    """
    data = Path(path).read_bytes()
    try:
        plain, followed = (
            np.asarray(Image.open(io.BytesIO(data + more + b"\xff\xd9")))
            for more in (b"", b"\x35\xa6\x5c" * 50)
        )
    except MemoryError:
        raise
    except Exception:
        return False
    return np.array_equal(plain, followed)


def _fail(code: str, path: str, message: str, remedy: str) -> NoReturn:
    raise DataError(Finding("error", code, path, message, remedy)) from None
