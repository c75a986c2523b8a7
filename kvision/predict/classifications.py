"""Photos in, the scores of all classes out.

`classify` brings photos to the model's input by the rule that the model itself holds
(its layer "preprocessing") and returns `Classifications`.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from PIL import Image

from kvision.evaluation.classification import probabilities
from kvision.export.classifier import Classifier
from kvision.predict.regions import input_regions
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

__all__ = ["Classifications", "classify", "prepare_photo"]

Array = np.ndarray
PathName = str | PathLike[str]


@dataclass(repr=False, eq=False)
class Classifications:
    """What a photo shows: a score for each class, and the best of them.

    Args:
        scores: (K,) float32 array, softmax of the logits.
        labels: (T,) int32 array: the classes of the T highest scores, best first.
        class_names: K names.
        image_size: (height, width) of the photo in pixels.
        logits: (K,) float32 array.
        path: the photo's file, if it came from one.
        source: the array or Pillow image the photo came as, if it did.
    """

    scores: Array
    labels: Array
    class_names: Sequence[str]
    image_size: tuple[int, int]
    logits: Array
    path: Path | None = None
    source: Source = field(default=None, repr=False)

    @property
    def names(self) -> list[str]:
        """Names of the best classes, best first."""
        return [self.class_names[label] for label in self.labels]

    @property
    def top(self) -> list[tuple[str, float]]:
        """Name and score of the best classes, best first."""
        return [
            (name, float(self.scores[label]))
            for name, label in zip(self.names, self.labels, strict=True)
        ]

    @property
    def image(self) -> Array:
        """The photo as (H, W, 3) uint8, upright; read from its file at each call."""
        source = self.path if self.source is None else self.source
        if source is None:
            raise ValueError("These classifications know neither a file nor an image")
        return displayable(load(source))

    def draw(self) -> Image.Image:
        """Draw the photo and beside it a bar for each of the best classes.

        Returns:
            A Pillow image in RGB.
        """
        from kvision.viz import draw_scores

        scores = [score for _, score in self.top]
        return draw_scores(self.image, self.names, scores, self.labels.tolist())

    def plot(self, path: PathName | None = None) -> Image.Image:
        """Draw the best classes and write the picture.

        Args:
            path: file to write, its ending chooses the format; None writes none.

        Returns:
            A Pillow image in RGB, which a notebook shows.
        """
        from kvision.viz import save_picture

        picture = self.draw()
        if path is not None:
            save_picture(picture, path)
        return picture

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for json: the file and the best classes."""
        return {
            "path": None if self.path is None else str(self.path),
            "image_size": list(self.image_size),
            "top": [
                {"name": name, "label": int(label), "score": score}
                for (name, score), label in zip(self.top, self.labels, strict=True)
            ],
        }

    def __repr__(self) -> str:
        best = ", ".join(f"{name} {score:.2f}" for name, score in self.top)
        place = f" of {self.path}" if self.path else ""
        return f"<classification{place}: {best}>"


@overload
def classify(
    model: Any,
    images: Any,
    top: int = ...,
    stream: Literal[False] = ...,
    batch_size: int = ...,
    on_error: Literal["raise", "skip"] = ...,
    regions: Iterable[Any] | None = ...,
) -> list[Classifications]: ...


@overload
def classify(
    model: Any,
    images: Any,
    top: int = ...,
    *,
    stream: Literal[True],
    batch_size: int = ...,
    on_error: Literal["raise", "skip"] = ...,
    regions: Iterable[Any] | None = ...,
) -> Iterator[Classifications]: ...


def classify(
    model: Any,
    images: Any,
    top: int = 5,
    stream: bool = False,
    batch_size: int = 16,
    on_error: Literal["raise", "skip"] = "raise",
    regions: Iterable[Any] | None = None,
) -> list[Classifications] | Iterator[Classifications]:
    """Say what photos of any size and number show.

    Args:
        model: a classifier of `kvision.models`, or a Functional model with the layers
            "preprocessing" (`kvision.layers.ImagePreprocessing`) and "head"
            (`kvision.layers.ClassificationHead`).
        images: as for `kvision.detect`: a path of a file or folder, a glob, an array
            (H, W), (H, W, C) or (B, H, W, C) with values 0..255, a Pillow image, or any
            iterable of those.
        top: how many classes `labels`, `names` and `top` hold; all if there are fewer.
        stream: whether to return an iterator that loads and classifies as it goes.
        batch_size: images that go through the model at once.
        on_error: what to do about a file that cannot be decoded: "raise" an error that
            names it, or "skip" it and log how many were skipped.
        regions: for a model that takes boxes of interest (`mixed_resolution_vit` with
            scorer="given"): for each image, in their order, an array (n, 4) of x1, y1,
            x2, y2 in pixels of that image, n from 0 to the model's number of regions.
            None leaves the choice to the detail in the images.

    Returns:
        One `Classifications` per image in the order of the images; folders and globs
        are sorted by name.

    Raises:
        ValueError: an image cannot be read or is not what was expected, the model is no
            classifier, or its logits are not finite; or regions do not fit the model,
            their image or the number of images.
    """
    if top < 1:
        raise ValueError(f"top must be 1 or more. Received: {top}")
    check_settings(batch_size, on_error)
    classifier = Classifier(model)
    if regions is not None and not classifier.num_regions:
        raise ValueError(
            f"{classifier.name} takes no regions; a mixed_resolution_vit with "
            'scorer="given" does'
        )
    found = _classify(classifier, images, top, batch_size, on_error, regions)
    return found if stream else list(found)


def _classify(
    classifier: Classifier,
    images: Any,
    top: int,
    batch_size: int,
    on_error: str,
    regions: Iterable[Any] | None,
) -> Iterator[Classifications]:
    boxes = itertools.repeat(()) if regions is None else iter(regions)

    def prepare(source: Source) -> Prepared:
        # Taken first, so that an image that is skipped does not shift the others.
        regions = next(boxes, None)
        return prepare_photo(classifier, source)._replace(regions=regions)

    for photos, pixels in prepared_batches(images, prepare, batch_size, on_error):
        logits = classifier.logits(pixels, _regions(classifier, photos, len(pixels)))
        for photo, row in zip(photos, logits[: len(photos)], strict=True):
            yield _from_logits(row, classifier.class_names, top, photo)
    if regions is not None and next(boxes, None) is not None:
        raise ValueError("regions has more entries than there are images")


def _regions(classifier: Classifier, photos: list[Prepared], rows: int) -> Array | None:
    """Put the boxes of a batch together, (rows, num_regions, 4)."""
    if not classifier.num_regions:
        return None
    regions = np.zeros((rows, classifier.num_regions, 4), np.float32)
    for row, photo in zip(regions, photos, strict=False):
        if photo.regions is None:
            raise ValueError(
                "regions has no entry for an image: fewer than images, or one "
                "is None. An image without boxes has an empty list"
            )
        row[:] = input_regions(classifier, photo.regions, photo.size)
    return regions


def _from_logits(
    logits: Array, class_names: list[str], top: int, photo: Prepared
) -> Classifications:
    path = path_of(photo.source)
    if not np.isfinite(logits).all():
        raise ValueError(
            f"The model's logits for {path or 'an image'} are not finite: {logits}. "
            "Was it trained until its loss was no number?"
        )
    # Stable: of equal logits the class of the smaller number, as in `argmax`.
    labels = np.argsort(-logits, kind="stable")[:top].astype(np.int32)
    return Classifications(
        probabilities(logits[None])[0].astype(np.float32),
        labels,
        class_names,
        photo.size,
        logits,
        path,
        photo.source if path is None else None,
    )


def prepare_photo(classifier: Classifier, source: Source) -> Prepared:
    """Bring one photo to a classifier's input by the rule that its model holds.

    Args:
        classifier: the classifier.
        source: a path, an array or a Pillow image.

    Returns:
        The photo, prepared.

    Raises:
        ValueError: it cannot be read or is no photo.
    """
    from kvision.data.preparation import prepare_image

    image = with_channels(load(source), classifier.num_channels)
    pixels = prepare_image(
        np.rint(image).astype(np.uint8),
        classifier.image_size,
        classifier.resize,
        classifier.crop_fraction,
        classifier.interpolation,
    )
    return Prepared(pixels, image.shape[:2], source)
