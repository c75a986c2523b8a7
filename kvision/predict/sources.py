"""What a user has, brought into batches: paths, folders, globs, arrays, videos.

One way for all tasks. A task says how one photo is prepared; the rest is done here.
"""

import glob
import logging
from collections.abc import Callable, Iterable, Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

__all__ = [
    "Prepared",
    "Source",
    "check_settings",
    "displayable",
    "frames",
    "load",
    "path_of",
    "prepared_batches",
    "with_channels",
]

Array = np.ndarray
PathName = str | PathLike[str]
Source = Any  # a path, an array or a Pillow image

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"}

_log = logging.getLogger("kvision.predict")


class Prepared(NamedTuple):
    """A photo brought to the model's input, and the way back.

    Attributes:
        pixels: (H, W, C) uint8 or float32 array of the model's input size.
        size: (height, width) of the photo in pixels.
        source: path, array or Pillow image of the photo.
        scale: (y, x): pixels of the input = pixels of the photo * scale.
        regions: boxes of interest (n, 4) in pixels of the photo; None where none were
            given.
    """

    pixels: Array
    size: tuple[int, int]
    source: Source
    scale: tuple[float, float] = (1.0, 1.0)
    regions: Any = None


def check_settings(batch_size: int, on_error: str) -> None:
    """Refuse settings that every task has, before the first photo is read.

    Args:
        batch_size: images that go through the model at once.
        on_error: "raise" or "skip".

    Raises:
        ValueError: one of them is not possible.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error must be "raise" or "skip". Received: {on_error!r}')
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more. Received: {batch_size}")


def prepared_batches(
    images: Any,
    prepare: Callable[[Source], Prepared],
    batch_size: int,
    on_error: str,
) -> Iterator[tuple[list[Prepared], Array]]:
    """Load photos and put them into batches.

    Args:
        images: a path of a file or folder, a glob, an array (H, W), (H, W, C) or
            (B, H, W, C), a Pillow image, or any iterable of those.
        prepare: brings one source to the model's input; raises ValueError.
        batch_size: photos a batch.
        on_error: "raise" what `prepare` raises of a file, or "skip" it and log.

    Yields:
        The photos of a batch, and their pixels (B, H, W, C). B is the same in all
        batches of a dtype: a last, smaller one is filled up with zeros, as another
        shape would be traced anew.
    """
    rows = 0
    for batch in _batches(_prepare_all(images, prepare, on_error), batch_size):
        pixels = np.stack([photo.pixels for photo in batch])
        rows = max(rows, len(batch))
        filling = np.zeros((rows - len(batch), *pixels.shape[1:]), pixels.dtype)
        yield batch, np.concatenate([pixels, filling])


def path_of(source: Source) -> Path | None:
    """Return the file that a photo came from, or None."""
    return Path(source) if isinstance(source, str | PathLike) else None


def frames(path: PathName, step: int = 1) -> Iterator[Array]:
    """Read a video frame by frame, lazily.

    Made for `detect(model, kv.predict.frames(path), stream=True)`.

    Args:
        path: file of a video.
        step: read every step-th frame.

    Yields:
        (H, W, 3) uint8 arrays.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("Videos need PyAV: pip install 'kvision[video]'") from error
    try:
        with av.open(fspath(path)) as video:
            for number, frame in enumerate(video.decode(video=0)):
                if number % step == 0:
                    turns = round(getattr(frame, "rotation", 0) / 90) % 4
                    yield np.rot90(frame.to_ndarray(format="rgb24"), turns)
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} cannot be read as a video: {error}") from error


def _prepare_all(
    images: Any, prepare: Callable[[Source], Prepared], on_error: str
) -> Iterator[Prepared]:
    """Load and resize each image; count those that cannot be decoded."""
    skipped: list[str] = []
    total = 0
    for source in _sources(images):
        total += 1
        try:
            yield prepare(source)
        except ValueError as error:
            if on_error == "raise" or not isinstance(source, (str, PathLike)):
                raise
            skipped.append(fspath(source))
            _log.warning("Skipped: %s", error)
    if skipped:
        names = ", ".join(skipped[:5]) + (" ..." if len(skipped) > 5 else "")
        _log.warning("Skipped %d of %d images: %s", len(skipped), total, names)


def _batches(items: Iterable[Prepared], batch_size: int) -> Iterator[list[Prepared]]:
    """Group images; a batch holds one dtype, as integers stay what they are."""
    batch: list[Prepared] = []
    for item in items:
        full = len(batch) == batch_size
        if batch and (full or item.pixels.dtype != batch[0].pixels.dtype):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _sources(images: Any) -> Iterator[Source]:
    """Take apart what a user gave into single paths, arrays and Pillow images."""
    if isinstance(images, (str, PathLike)):
        yield from _paths(fspath(images))
    elif isinstance(images, Image.Image):
        yield images
    elif hasattr(images, "__array__"):
        array = np.asarray(images)
        yield from array if array.ndim == 4 else [array]
    elif isinstance(images, Iterable):
        for item in images:
            yield from _sources(item)
    else:
        raise ValueError(
            "Expected paths, arrays, Pillow images or an iterable of them. "
            f"Received: {type(images).__name__}"
        )


def _paths(name: str) -> list[Path]:
    """List the image files of a path, a folder or a glob, sorted."""
    path = Path(name).expanduser()
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES]
    elif glob.has_magic(name) and not path.exists():
        found = [Path(file) for file in glob.glob(str(path), recursive=True)]
    else:
        return [path]
    if not found:
        endings = ", ".join(sorted(_SUFFIXES))
        raise ValueError(f"No image in {name} (looked for {endings})")
    return sorted(found)


def load(source: Source) -> Array:
    """Read one photo, upright.

    Args:
        source: a path, an array or a Pillow image.

    Returns:
        (H, W, C) array, uint8 or float32 in 0..255.

    Raises:
        ValueError: it cannot be read or is no photo.
    """
    if isinstance(source, (str, PathLike)):
        from kvision.data.images import load_image

        return load_image(source)
    if isinstance(source, Image.Image):
        return _pixels_of(source)
    return _checked(np.asarray(source))


def _pixels_of(image: Image.Image) -> Array:
    """Convert a Pillow image by the rules that `load_image` has for files."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return _checked(np.asarray(image).astype(np.uint16))
    if image.mode in ("P", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _checked(image: Array) -> Array:
    """Bring an array to (H, W, C), uint8 or float32 in 0..255, or refuse it."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.size == 0 or image.dtype.kind not in "uif":
        raise ValueError(
            "Expected an image of shape (H, W, C) with numbers in 0..255. "
            f"Received: shape {image.shape}, dtype {image.dtype}"
        )
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 255):
        raise ValueError(f"Expected values in 0..255. Received: {low} to {high}")
    if image.dtype.kind in "ui":
        return image.astype(np.uint8)
    if 0 < high <= 1:
        raise ValueError(
            f"Expected values in 0..255. Received: {low} to {high}, which looks scaled "
            "to 0..1; multiply by 255"
        )
    return image.astype(np.float32)


def with_channels(image: Array, num_channels: int) -> Array:
    """Give an image the model's number of channels where that is well defined.

    Args:
        image: (H, W, C) array.
        num_channels: what the model takes.

    Returns:
        (H, W, num_channels) array: grey repeated, alpha left out, colours weighed.

    Raises:
        ValueError: there is no such way.
    """
    channels = image.shape[2]
    if channels == num_channels:
        return image
    if num_channels == 3 and channels == 1:
        return np.repeat(image, 3, axis=2)
    if num_channels == 3 and channels == 4:
        return image[..., :3]
    if num_channels == 1 and channels in (3, 4):
        grey = image[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
        return np.round(grey).astype(image.dtype)[..., None]
    raise ValueError(
        f"The model takes images of {num_channels} channels. Received: {channels}"
    )


def displayable(image: Array) -> Array:
    """Return an image as (H, W, 3) uint8, whatever channels it has.

    Args:
        image: (H, W, C) array in 0..255.

    Returns:
        The first 3 channels, or the first one three times.
    """
    if image.shape[2] != 3:
        image = image[..., :3] if image.shape[2] > 3 else image[..., :1].repeat(3, 2)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)
