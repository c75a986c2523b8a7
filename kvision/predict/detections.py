"""Photos in, detections in their original pixels out.

`detect` brings photos to the model's input by the one rule of resizing and returns
`Detections`: boxes in original pixels, masks pasted only when they are asked for.
"""

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from PIL import Image

from kvision.evaluation.masks import Patch, paste, patches, rles
from kvision.evaluation.results import detection_results, original_boxes
from kvision.predict.sources import (
    Prepared,
    Source,
    check_settings,
    displayable,
    load,
    path_of,
    prepared_batches,
    with_channels,
)

__all__ = ["Detections", "detect", "from_outputs", "from_targets"]

Array = np.ndarray
PathName = str | PathLike[str]


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
        return displayable(load(source))

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
    check_settings(batch_size, on_error)
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
    path = path_of(source)
    return Detections(
        boxes,
        scores[real][kept].astype(np.float32),
        labels[real][kept].astype(np.int32),
        class_names,
        (int(size[0]), int(size[1])),
        None if crops is None else np.asarray(crops[row][real][kept], np.float32),
        None if crops is None else mask_boxes,
        path,
        source if path is None else None,
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
    photo = displayable(np.asarray(images[row])[:height, :width])
    return from_outputs(outputs, 0, class_names, (height, width), source=photo)


def _detect(
    model: Any, images: Any, score_threshold: float, batch_size: int, on_error: str
) -> Iterator[Detections]:
    prepare = functools.partial(_prepare, model)
    for photos, pixels in prepared_batches(images, prepare, batch_size, on_error):
        outputs = model.predict_on_batch(pixels)
        outputs = {name: np.asarray(value) for name, value in outputs.items()}
        for row, photo in enumerate(photos):
            yield from_outputs(
                outputs,
                row,
                list(model.class_names),
                photo.size,
                photo.scale,
                score_threshold,
                photo.source,
            )


def _prepare(model: Any, source: Source) -> Prepared:
    import tensorflow as tf

    from kvision.data.images import resample, resized_size

    image = with_channels(load(source), getattr(model, "num_channels", 3))
    height, width = image.shape[:2]
    rows, columns = resized_size(height, width, model.image_size, model.resize)
    pixels = np.zeros((*model.image_size, image.shape[2]), image.dtype)
    pixels[:rows, :columns] = resample(
        tf.convert_to_tensor(image), tf.constant([rows, columns])
    )
    scale = rows / height, columns / width
    return Prepared(pixels, (height, width), source, scale)
