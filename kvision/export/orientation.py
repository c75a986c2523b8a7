"""EXIF orientation read inside a TensorFlow graph.

TensorFlow's decoders ignore it, and photos of a phone then lie on their side. The graph
walks the segments of a JPEG file as a reader in Python would.
"""

from typing import Any

import tensorflow as tf

__all__ = ["exif_orientation", "upright"]

Tensor = Any

# EXIF comes first in a file and a segment holds at most 64 KiB.
_HEAD = 1 << 17
_START_OF_SCAN = 0xDA
_APP1 = 0xE1
_EXIF = (0x45, 0x78, 0x69, 0x66, 0, 0)  # "Exif" and two zeros
_ORIENTATION = 0x0112


def exif_orientation(contents: Tensor) -> Tensor:
    """Read the orientation of a JPEG file.

    Args:
        contents: scalar string tensor, the bytes of the file.

    Returns:
        int32 scalar in 1..8; 1 where the file does not say or is no JPEG.

    Source: JEITA CP-3451, Exif 2.3, sections 4.5 and 4.6.4; tag 274.
    """
    head = tf.strings.substr(contents, 0, _HEAD)
    # Whatever a damaged file points to behind its end reads as 0.
    codes = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int32)
    codes = tf.pad(codes, [[0, 16]])
    is_jpeg = tf.logical_and(codes[0] == 0xFF, codes[1] == 0xD8)
    start = tf.cond(is_jpeg, lambda: _find_exif(codes), lambda: tf.constant(-1))
    return tf.cond(start >= 0, lambda: _in_tiff(codes, start), lambda: tf.constant(1))


def upright(image: Tensor, orientation: Tensor) -> Tensor:
    """Turn an image as its orientation asks.

    Args:
        image: (H, W, C) tensor.
        orientation: int32 scalar in 1..8.

    Returns:
        (H, W, C) or (W, H, C) tensor.
    """
    return tf.switch_case(
        orientation - 1,
        [
            lambda: image,
            lambda: tf.reverse(image, [1]),
            lambda: tf.reverse(image, [0, 1]),
            lambda: tf.reverse(image, [0]),
            lambda: tf.transpose(image, (1, 0, 2)),
            lambda: tf.reverse(tf.transpose(image, (1, 0, 2)), [1]),
            lambda: tf.reverse(tf.transpose(image, (1, 0, 2)), [0, 1]),
            lambda: tf.reverse(tf.transpose(image, (1, 0, 2)), [0]),
        ],
    )


def _find_exif(codes: Tensor) -> Tensor:
    """Return where the TIFF structure of the EXIF segment begins, or -1."""
    size = tf.size(codes)

    def is_exif(position: Tensor) -> Tensor:
        tag = _at(codes, position + 4 + tf.range(len(_EXIF)))
        is_app1 = _at(codes, position + 1) == _APP1
        return tf.logical_and(is_app1, tf.reduce_all(tag == tf.constant(_EXIF)))

    def goes_on(position: Tensor) -> Tensor:
        marker = _at(codes, position + 1)
        is_segment = tf.logical_and(
            _at(codes, position) == 0xFF, marker != _START_OF_SCAN
        )
        inside = tf.logical_and(position < size, is_segment)
        return tf.logical_and(inside, tf.logical_not(is_exif(position)))

    def next_segment(position: Tensor) -> tuple[Tensor]:
        length = _number(codes, position + 2, 2, little_endian=tf.constant(False))
        return (position + 2 + length,)

    (position,) = tf.while_loop(goes_on, next_segment, (tf.constant(2),))
    found = tf.logical_and(_at(codes, position) == 0xFF, is_exif(position))
    return tf.where(found, position + 4 + len(_EXIF), -1)


def _in_tiff(codes: Tensor, start: Tensor) -> Tensor:
    """Look the orientation up in the first directory of a TIFF structure."""
    little_endian = _at(codes, start) == 0x49
    directory = start + _number(codes, start + 4, 4, little_endian)
    count = _number(codes, directory, 2, little_endian)
    entries = directory + 2 + 12 * tf.range(count)
    tags = _number(codes, entries, 2, little_endian)
    values = _number(codes, entries + 8, 2, little_endian)
    is_valid = tf.logical_and(values >= 1, values <= 8)
    is_wanted = tf.logical_and(tags == _ORIENTATION, is_valid)
    return tf.reduce_max(tf.concat([[1], tf.where(is_wanted, values, 1)], axis=0))


def _number(
    codes: Tensor, position: Tensor, width: int, little_endian: Tensor
) -> Tensor:
    """Read unsigned numbers of `width` bytes."""
    places = tf.range(width)
    shifts = 8 * tf.where(little_endian, places, width - 1 - places)
    parts = _at(codes, position[..., None] + places)
    return tf.reduce_sum(tf.bitwise.left_shift(parts, shifts), axis=-1)


def _at(codes: Tensor, position: Tensor) -> Tensor:
    last = tf.size(codes) - 1
    # A length of 4 bytes may overflow to a negative position.
    return tf.gather(codes, tf.where(position < 0, last, tf.minimum(position, last)))
