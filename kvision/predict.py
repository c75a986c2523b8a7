"""Images in, detections in the pixels of the original photos out.

`detect` takes what a user has (paths, folders, globs, arrays, Pillow images, frames of
a video), brings it to the model's input by the one rule of resizing, and returns
`Detections`: boxes in original pixels, masks pasted only when they are asked for.
"""

import glob
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from PIL import Image, ImageOps

from kvision.evaluation.masks import Patch, paste, patches, rles
from kvision.evaluation.results import detection_results, original_boxes

__all__ = ["Detections", "detect", "frames", "from_outputs", "from_targets"]

Array = np.ndarray
PathName = str | PathLike[str]
Source = Any  # a path, an array or a Pillow image

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"}

_log = logging.getLogger("kvision.predict")


@dataclass(repr=False, eq=False)
class Detections:
    """What was found in one photo, best first, in the photo's own pixels.

    `len(detections)` counts them; `detections[0]`, `detections[:5]` and
    `detections[detections.scores > 0.8]` select some.

    Args:
        boxes: (N, 4) float32 array, xyxy, cut to the photo.
        scores: (N,) float32 array in [0, 1].
        labels: (N,) int32 array, positions in `class_names`.
        class_names: names of the model's classes.
        image_size: (height, width) of the photo in pixels.
        mask_crops: (N, h, w) float32 array in [0, 1], each mask as a grid laid over its
            box; None without masks.
        mask_boxes: (N, 4) float32 array, the boxes before they were cut: the grids lie
            over these.
        path: the photo's file, if it came from one.
        source: the array or Pillow image the photo came as, if it did.
    """

    boxes: Array
    scores: Array
    labels: Array
    class_names: Sequence[str]
    image_size: tuple[int, int]
    mask_crops: Array | None = None
    mask_boxes: Array | None = None
    path: Path | None = None
    source: Source = field(default=None, repr=False)

    @property
    def names(self) -> list[str]:
        """Name of each detection's class."""
        return [self.class_names[label] for label in self.labels]

    @property
    def image(self) -> Array:
        """The photo as (H, W, 3) uint8, upright; read from its file at each call."""
        source = self.path if self.source is None else self.source
        if source is None:
            raise ValueError("These detections know neither a file nor an image")
        return _displayable(_load(source))

    @property
    def masks(self) -> Array | None:
        """(N, H, W) bool, pasted at each call: N * H * W bytes. `rles` costs less."""
        if self.mask_crops is None:
            return None
        return paste(self.mask_crops, self._mask_boxes(), self.image_size)

    def rles(self) -> list[dict[str, Any]]:
        """Encode the masks as COCO's compressed RLE, without any full-size image.

        Returns:
            A dict `{"size": [height, width], "counts": str}` for each detection.
        """
        if self.mask_crops is None:
            raise ValueError("These detections have no masks")
        return rles(self.mask_crops, self._mask_boxes(), self.image_size)

    def draw(self, show_scores: bool = True) -> Image.Image:
        """Draw the detections on the photo, enlarged if it is small.

        Args:
            show_scores: whether captions say the score beside the name.

        Returns:
            A Pillow image in RGB.
        """
        from kvision.viz import draw_detections, picture_zoom

        zoom = picture_zoom(self.image_size)
        photo = Image.fromarray(self.image)
        photo = photo.resize((photo.width * zoom, photo.height * zoom))
        captions = [
            f"{name} {score:.2f}" if show_scores else name
            for name, score in zip(self.names, self.scores, strict=True)
        ]
        return draw_detections(
            photo, self.boxes * zoom, self.labels, captions, self._patches(zoom)
        )

    def plot(
        self, path: PathName | None = None, show_scores: bool = True
    ) -> Image.Image:
        """Draw the detections and write the picture.

        Args:
            path: file to write, its ending chooses the format; None writes none.
            show_scores: whether captions say the score beside the name.

        Returns:
            A Pillow image in RGB, which a notebook shows.
        """
        from kvision.viz import save_picture

        picture = self.draw(show_scores)
        if path is not None:
            save_picture(picture, path)
        return picture

    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Write the detections as COCO results.

        Args:
            image_id: id of the photo in the annotations.
            category_ids: category id of each class; by default the labels themselves.

        Returns:
            One dict per detection, with its RLE if there are masks.
        """
        return detection_results(
            image_id,
            category_ids or range(len(self.class_names)),
            self.boxes,
            self.scores,
            self.labels,
            None if self.mask_crops is None else self.rles(),
        )

    def to_supervision(self) -> Any:
        """Convert to `supervision.Detections` for its annotators and trackers.

        Returns:
            The same boxes, scores and labels, full-size masks, and names under
            `data["class_name"]`.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError(
                "to_supervision needs supervision: pip install 'kvision[viz]'"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels.astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> "Detections":
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"Detection {index} of {len(self)}")
            index = [index]
        return Detections(
            self.boxes[index],
            self.scores[index],
            self.labels[index],
            self.class_names,
            self.image_size,
            None if self.mask_crops is None else self.mask_crops[index],
            None if self.mask_boxes is None else self.mask_boxes[index],
            self.path,
            self.source,
        )

    def __iter__(self) -> Iterator["Detections"]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in Counter(self.names).items())
        place = f" in {self.path}" if self.path else ""
        return f"<{len(self)} detections{place}{': ' + counts if counts else ''}>"

    def _mask_boxes(self) -> Array:
        return self.boxes if self.mask_boxes is None else self.mask_boxes

    def _patches(self, zoom: int) -> list[Patch] | None:
        if self.mask_crops is None:
            return None
        size = self.image_size[0] * zoom, self.image_size[1] * zoom
        return list(patches(self.mask_crops, self._mask_boxes() * zoom, size))


@overload
def detect(
    model: Any,
    images: Any,
    score_threshold: float = ...,
    stream: Literal[False] = ...,
    batch_size: int = ...,
    on_error: Literal["raise", "skip"] = ...,
) -> list[Detections]: ...


@overload
def detect(
    model: Any,
    images: Any,
    score_threshold: float = ...,
    *,
    stream: Literal[True],
    batch_size: int = ...,
    on_error: Literal["raise", "skip"] = ...,
) -> Iterator[Detections]: ...


def detect(
    model: Any,
    images: Any,
    score_threshold: float = 0.5,
    stream: bool = False,
    batch_size: int = 4,
    on_error: Literal["raise", "skip"] = "raise",
) -> list[Detections] | Iterator[Detections]:
    """Find objects in photos of any size and number.

    Args:
        model: a detector of `kvision.models` (or what has its attributes and
            `predict_on_batch`).
        images: a path of a file or folder, a glob such as "photos/*.jpg", an array
            (H, W), (H, W, C) or (B, H, W, C) with values 0..255, a Pillow image, or
            any iterable of those. EXIF orientation is applied, alpha is ignored, 16
            bits are reduced to 8.
        score_threshold: the least score of what is returned.
        stream: whether to return an iterator that loads and detects as it goes, for
            more images than results fit into memory.
        batch_size: images that go through the model at once.
        on_error: what to do about a file that cannot be decoded: "raise" an error
            that names it, or "skip" it and log how many were skipped.

    Returns:
        One `Detections` per image in the order of the images; folders and globs are
        sorted by name.

    Raises:
        ValueError: an image cannot be read or is not what was expected.
    """
    for name in ("class_names", "image_size", "resize", "predict_on_batch"):
        if not hasattr(model, name):
            raise ValueError(
                f"Expected a detector of kvision.models. Received a "
                f"{type(model).__name__} without {name}"
            )
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error must be "raise" or "skip". Received: {on_error!r}')
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more. Received: {batch_size}")
    found = _detect(model, images, score_threshold, batch_size, on_error)
    return found if stream else list(found)


def from_outputs(
    outputs: dict[str, Array],
    row: int,
    class_names: Sequence[str],
    size: Sequence[int],
    scale: Sequence[float] = (1.0, 1.0),
    score_threshold: float = 0.0,
    source: Source = None,
) -> Detections:
    """Take one image's detections out of a batch of a model's outputs.

    Args:
        outputs: the model's dict of arrays.
        row: which image of the batch.
        class_names: names of the model's classes.
        size: (height, width) of the photo in pixels.
        scale: (y, x): pixels of the model's input = pixels of the photo * scale.
        score_threshold: the least score of what is returned.
        source: path, array or Pillow image of the photo, for drawing.

    Returns:
        The detections in pixels of the photo.
    """
    labels, scores = (
        np.asarray(outputs["labels"][row]),
        np.asarray(outputs["scores"][row]),
    )
    real = (labels >= 0) & (scores >= score_threshold)
    boxes, mask_boxes, kept = original_boxes(outputs["boxes"][row][real], scale, size)
    crops = outputs.get("masks")
    is_path = isinstance(source, (str, PathLike))
    return Detections(
        boxes,
        scores[real][kept].astype(np.float32),
        labels[real][kept].astype(np.int32),
        class_names,
        (int(size[0]), int(size[1])),
        None if crops is None else np.asarray(crops[row][real][kept], np.float32),
        None if crops is None else mask_boxes,
        Path(source) if is_path else None,
        None if is_path else source,
    )


def from_targets(
    images: Array, targets: dict[str, Array], row: int, class_names: Sequence[str]
) -> Detections:
    """Take one image's ground truth out of a batch, as if it had been detected.

    For looking at what a model trains on, beside what it finds.

    Args:
        images: (B, H, W, 3) array of a dataset's batch.
        targets: the targets of the same batch.
        row: which image of the batch.
        class_names: names of the classes.

    Returns:
        The objects with score 1 in pixels of the model's input, its padding cut off;
        crowds are left out.
    """
    height, width = (int(side) for side in targets["image_sizes"][row])
    labels = np.asarray(targets["gt_labels"][row])
    outputs = {
        "boxes": np.asarray(targets["gt_boxes"])[row : row + 1],
        "labels": labels[None],
        "scores": np.ones((1, len(labels)), np.float32),
    }
    if "gt_masks" in targets:
        crops = np.asarray(targets["gt_masks"])[row : row + 1]
        outputs["masks"] = crops.astype(np.float32) / 255.0
    photo = _displayable(np.asarray(images[row])[:height, :width])
    return from_outputs(outputs, 0, class_names, (height, width), source=photo)


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


class _Prepared(NamedTuple):
    """A photo brought to the model's input, and the way back."""

    pixels: Array
    scale: tuple[float, float]
    size: tuple[int, int]
    source: Source


def _detect(
    model: Any, images: Any, score_threshold: float, batch_size: int, on_error: str
) -> Iterator[Detections]:
    prepared = _prepare_all(model, images, on_error)
    rows = 0
    for batch in _batches(prepared, batch_size):
        pixels = np.stack([photo.pixels for photo in batch])
        # A last, smaller batch is filled up: another shape would be traced anew.
        rows = max(rows, len(batch))
        filling = np.zeros((rows - len(batch), *pixels.shape[1:]), pixels.dtype)
        outputs = model.predict_on_batch(np.concatenate([pixels, filling]))
        outputs = {name: np.asarray(value) for name, value in outputs.items()}
        for row, photo in enumerate(batch):
            yield from_outputs(
                outputs,
                row,
                list(model.class_names),
                photo.size,
                photo.scale,
                score_threshold,
                photo.source,
            )


def _prepare_all(model: Any, images: Any, on_error: str) -> Iterator[_Prepared]:
    """Load and resize each image; count those that cannot be decoded."""
    skipped: list[str] = []
    total = 0
    for source in _sources(images):
        total += 1
        try:
            yield _prepare(model, source)
        except ValueError as error:
            if on_error == "raise" or not isinstance(source, (str, PathLike)):
                raise
            skipped.append(fspath(source))
            _log.warning("Skipped: %s", error)
    if skipped:
        names = ", ".join(skipped[:5]) + (" ..." if len(skipped) > 5 else "")
        _log.warning("Skipped %d of %d images: %s", len(skipped), total, names)


def _prepare(model: Any, source: Source) -> _Prepared:
    import tensorflow as tf

    from kvision.data.images import resample, resized_size

    image = _with_channels(_load(source), getattr(model, "num_channels", 3))
    height, width = image.shape[:2]
    rows, columns = resized_size(height, width, model.image_size, model.resize)
    pixels = np.zeros((*model.image_size, image.shape[2]), image.dtype)
    pixels[:rows, :columns] = resample(
        tf.convert_to_tensor(image), tf.constant([rows, columns])
    )
    return _Prepared(pixels, (rows / height, columns / width), (height, width), source)


def _batches(items: Iterable[_Prepared], batch_size: int) -> Iterator[list[_Prepared]]:
    """Group images; a batch holds one dtype, as integers stay what they are."""
    batch: list[_Prepared] = []
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


def _load(source: Source) -> Array:
    """Return the pixels of a source, upright: (H, W, C) uint8 or float32 in 0..255."""
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


def _with_channels(image: Array, num_channels: int) -> Array:
    """Give an image the model's number of channels where that is well defined."""
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


def _displayable(image: Array) -> Array:
    """Return an image as (H, W, 3) uint8, whatever channels it has."""
    if image.shape[2] != 3:
        image = image[..., :3] if image.shape[2] > 3 else image[..., :1].repeat(3, 2)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)
