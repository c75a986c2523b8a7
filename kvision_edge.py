"""Models on a device: one file that needs NumPy and LiteRT, nothing else of kvision.

    detector = Detector("nuclei.tflite")
    found = detector.detect("photo.jpg")       # or an array (H, W, 3) of 0..255
    found.boxes, found.scores, found.names, found.masks   # in pixels of the photo

    classifier = Classifier("flowers.tflite")
    found = classifier.classify("photo.jpg", top=3)
    found.names, found.scores                             # best first

    python kvision_edge.py nuclei.tflite photo.jpg            # prints json

Install with `pip install ai-edge-litert`, and Pillow to read image files. The TFLite
file is one that `kvision.export.tflite` wrote: it says how photos are resized.
"""

import argparse
import json
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

__all__ = [
    "Classifications",
    "Classifier",
    "Detections",
    "Detector",
    "fit",
    "paste",
    "prepare",
]

Array = np.ndarray
PathName = str | PathLike[str]
Taps = tuple[int, Array]  # the first pixel, and the weights of it and those after it

_FORMATS = ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"]


@dataclass(repr=False, eq=False)
class Detections:
    """What was found in one photo, best first, in the photo's own pixels.

    Attributes:
        boxes: (N, 4) float32 array: x1, y1, x2, y2, cut to the photo.
        scores: (N,) float32 array in [0, 1].
        labels: (N,) int32 array.
        names: N names of classes.
        image_size: (height, width) of the photo.
        mask_crops: (N, h, w) float32 array in [0, 1], each mask as a grid laid over its
            box; None without masks.
        mask_boxes: (N, 4) float32 array, the boxes before they were cut: the grids lie
            over these.
    """

    boxes: Array
    scores: Array
    labels: Array
    names: list[str]
    image_size: tuple[int, int]
    mask_crops: Array | None
    mask_boxes: Array

    @property
    def masks(self) -> Array | None:
        """(N, H, W) bool, pasted at each call: N * H * W bytes."""
        if self.mask_crops is None:
            return None
        return paste(self.mask_crops, self.mask_boxes, self.image_size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for json; masks as COCO's uncompressed RLE."""
        found: list[dict[str, Any]] = [
            {"name": name, "label": label, "score": score, "box": box}
            for name, label, score, box in zip(
                self.names,
                self.labels.tolist(),
                self.scores.tolist(),
                self.boxes.tolist(),
                strict=True,
            )
        ]
        if self.mask_crops is not None:
            for i, detection in enumerate(found):
                crop, box = self.mask_crops[i : i + 1], self.mask_boxes[i : i + 1]
                (mask,) = paste(crop, box, self.image_size)
                detection["segmentation"] = _run_lengths(mask)
        return {"image_size": list(self.image_size), "detections": found}

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        return f"<{len(self)} detections: {', '.join(self.names)}>"


class Detector:
    """A detector in a TFLite file.

    Args:
        path: the file.
        num_threads: threads of the runtime; None leaves it the choice.

    Attributes:
        class_names: names of the labels 0..K-1.
        image_size: (height, width) of the input in pixels.
        description: all that the file says about itself.

    Raises:
        ValueError: if the file does not come from `kvision.export.tflite`.
        ImportError: if there is no LiteRT.
    """

    def __init__(self, path: PathName, num_threads: int | None = None) -> None:
        self.description = _read_description(path, "detection")
        self.class_names: list[str] = self.description["class_names"]
        height, width = self.description["image_size"]
        self.image_size = (height, width)
        self._run = _runner(path, num_threads)

    def detect(
        self, image: PathName | Array, score_threshold: float = 0.5
    ) -> Detections:
        """Find objects in a photo of any size.

        Args:
            image: a path, or an RGB array (H, W, 3) or grey (H, W) of values 0..255
                (of uint16 the high byte counts).
            score_threshold: the least score of what is returned.

        Returns:
            The detections in pixels of the photo.

        Raises:
            ValueError: if the image has another shape, values beyond 0..255 or in
                0..1, or its file is damaged.
        """
        photo = _load(image, self.description["num_channels"])
        pixels, scales = fit(photo, self.image_size, self.description["resize"])
        outputs = {k: v[0] for k, v in self._run(images=pixels[None]).items()}
        return self._in_photo(outputs, scales, photo.shape, score_threshold)

    def _in_photo(
        self,
        outputs: dict[str, Array],
        scales: tuple[float, float],
        shape: tuple[int, ...],
        score_threshold: float,
    ) -> Detections:
        height, width = shape[:2]
        whole = outputs["boxes"] / np.array([*scales[::-1]] * 2, np.float32)
        boxes = np.clip(whole, 0, np.array([width, height] * 2, np.float32))
        # A box that lies wholly in the padding is not in the photo.
        in_photo = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
        is_real = (outputs["labels"] >= 0) & (outputs["scores"] >= score_threshold)
        kept = in_photo & is_real
        labels = outputs["labels"][kept]
        return Detections(
            boxes[kept],
            outputs["scores"][kept],
            labels,
            [self.class_names[label] for label in labels],
            (height, width),
            outputs["masks"][kept] if "masks" in outputs else None,
            whole[kept],
        )


@dataclass(repr=False, eq=False)
class Classifications:
    """What a photo shows, best first.

    Attributes:
        names: T names of classes.
        scores: (T,) float32 array in [0, 1].
        labels: (T,) int32 array.
        all_scores: (K,) float32 array, of all classes in their order; they sum to 1.
        image_size: (height, width) of the photo.
    """

    names: list[str]
    scores: Array
    labels: Array
    all_scores: Array
    image_size: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for json."""
        top = [
            {"name": name, "label": label, "score": score}
            for name, label, score in zip(
                self.names, self.labels.tolist(), self.scores.tolist(), strict=True
            )
        ]
        return {"image_size": list(self.image_size), "top": top}

    def __repr__(self) -> str:
        best = (f"{n} {s:.2f}" for n, s in zip(self.names, self.scores, strict=True))
        return f"<classification: {', '.join(best)}>"


class Classifier:
    """A classifier in a TFLite file.

    Args:
        path: the file.
        num_threads: threads of the runtime; None leaves it the choice.

    Attributes:
        class_names: names of the labels 0..K-1.
        image_size: (height, width) of the input in pixels.
        description: all that the file says about itself.

    Raises:
        ValueError: if the file does not come from `kvision.export.tflite`, or holds no
            classifier.
        ImportError: if there is no LiteRT.
    """

    def __init__(self, path: PathName, num_threads: int | None = None) -> None:
        self.description = _read_description(path, "classification")
        self.class_names: list[str] = self.description["class_names"]
        height, width = self.description["image_size"]
        self.image_size = (height, width)
        self._run = _runner(path, num_threads)

    def classify(
        self,
        image: PathName | Array,
        top: int = 5,
        regions: Sequence[Sequence[float]] | Array = (),
    ) -> Classifications:
        """Say what a photo of any size shows.

        Args:
            image: a path, or an RGB array (H, W, 3) or grey (H, W) of values 0..255
                (of uint16 the high byte counts).
            top: how many classes to name; all if there are fewer.
            regions: boxes of interest x1, y1, x2, y2 in pixels of the photo, for a
                model that takes some: it looks closely there.

        Returns:
            The best classes.

        Raises:
            ValueError: if the image has another shape, values beyond 0..255 or in
                0..1, or its file is damaged; or regions are more than the model takes,
                or not within the photo.
        """
        channels = self.description["num_channels"]
        # As `kvision.classify` does, which weighs colours after the photo is read.
        photo = _load(image, 3) if channels == 1 else _load(image, channels)
        height, width = photo.shape[:2]
        pixels = prepare(
            _grey(photo) if channels == 1 else photo,
            self.image_size,
            self.description["resize"],
            self.description["crop_fraction"],
            self.description["interpolation"],
        )
        inputs = {"images": pixels[None], **self._regions(regions, (height, width))}
        scores = self._run(**inputs)["scores"][0]
        labels = np.argsort(-scores, kind="stable")[:top].astype(np.int32)
        names = [self.class_names[label] for label in labels]
        return Classifications(names, scores[labels], labels, scores, (height, width))

    def _regions(self, boxes: Any, photo_size: tuple[int, int]) -> dict[str, Array]:
        """Take boxes to pixels of the input, filled up with zeros, as (1, R, 4)."""
        most = self.description.get("num_regions", 0)
        if len(boxes) > most:
            raise ValueError(
                f"The model takes {most or 'no'} regions. Received: {len(boxes)}"
            )
        if not most:
            return {}
        height, width = photo_size
        whole, (top, left) = _whole_size(
            photo_size,
            self.image_size,
            self.description["resize"],
            self.description["crop_fraction"],
        )
        y, x = whole[0] / height, whole[1] / width
        regions = np.zeros((1, most, 4), np.float32)
        for row, (x1, y1, x2, y2) in zip(regions[0], boxes, strict=False):
            if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
                raise ValueError(
                    f"Expected regions x1 < x2, y1 < y2 within the photo of {width} x "
                    f"{height} pixels. Received: {x1}, {y1}, {x2}, {y2}"
                )
            row[:] = x1 * x - left, y1 * y - top, x2 * x - left, y2 * y - top
        return {"regions": regions}


def prepare(
    image: Array,
    image_size: tuple[int, int],
    resize: str = "crop",
    crop_fraction: float = 0.875,
    interpolation: str = "bicubic",
) -> Array:
    """Bring an image to a classifier's input size.

    Args:
        image: (h, w, C) uint8 array.
        image_size: (height, width) of the result in pixels.
        resize: "crop" brings the short side to `image_size / crop_fraction` and cuts
            the middle out; "stretch" squashes the whole image into the input; "pad"
            keeps the aspect ratio and pads with 0 at the bottom and right.
        crop_fraction: share of the short side that "crop" keeps.
        interpolation: "bicubic" or "bilinear", widened where the image shrinks.

    Returns:
        (H, W, C) uint8 array: what Pillow gives.

    Source: Pillow 13, src/libImaging/Resample.c: two passes in whole numbers, rounded
    after each; y first where the height shrinks by much more than the width.
    """
    height, width = image.shape[:2]
    whole, first = _whole_size((height, width), image_size, resize, crop_fraction)
    size = whole if resize == "pad" else image_size
    shrunk = height - whole[0], width - whole[1]
    is_y_first = shrunk[0] > 0 and shrunk[0] > 2 * shrunk[1]
    for axis in (0, 1) if is_y_first else (1, 0):
        old = image.shape[axis]
        if (whole[axis], size[axis]) != (old, old):
            taps = _filters(old, whole[axis], first[axis], size[axis], interpolation)
            image = _resample_exactly(image, size[axis], axis, taps)
    padded = np.zeros((*image_size, image.shape[2]), np.uint8)
    padded[: size[0], : size[1]] = image
    return padded


def _whole_size(
    photo_size: tuple[int, int],
    image_size: tuple[int, int],
    resize: str,
    crop_fraction: float,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Say how `prepare` resizes a photo.

    Returns:
        (height, width) of the whole photo once it is resized, and (y, x) of the pixel
        there that is the first of the input.
    """
    height, width = photo_size
    if resize == "crop":
        rows, columns = (int(side / crop_fraction) for side in image_size)
        if rows * width >= columns * height:
            whole = rows, rows * width // height
        else:
            whole = columns * height // width, columns
        top, left = (
            round((all_ - kept) / 2)
            for all_, kept in zip(whole, image_size, strict=True)
        )
        return whole, (top, left)
    if resize == "pad":
        scale = min(image_size[0] / height, image_size[1] / width)
        rows, columns = (max(1, math.floor(s * scale + 0.5)) for s in (height, width))
        return (rows, columns), (0, 0)
    return image_size, (0, 0)


def fit(
    image: Array, image_size: tuple[int, int], resize: str
) -> tuple[Array, tuple[float, float]]:
    """Bring an image to the model's input size.

    Args:
        image: (h, w, C) uint8 array.
        image_size: (height, width) of the result in pixels.
        resize: "pad" keeps the aspect ratio and pads with 0 at the bottom and right;
            "stretch" does not.

    Returns:
        (H, W, C) uint8 array, and (y, x) scales: pixels of the result = pixels of the
        image * scale.

    Source: the triangle filter of `tf.image.resize(antialias=True)`.
    """
    height, width = image.shape[:2]
    rows, columns = image_size
    if resize == "pad":
        scale = min(rows / height, columns / width)
        rows = max(1, math.floor(height * scale + 0.5))
        columns = max(1, math.floor(width * scale + 0.5))
    padded = np.zeros((*image_size, image.shape[2]), np.uint8)
    if (rows, columns) == (height, width):
        padded[:rows, :columns] = image
    else:
        resampled = image
        for axis, size in enumerate((rows, columns)):
            taps = _triangles(resampled.shape[axis], size)
            resampled = _resample(resampled, size, axis, taps)
        padded[:rows, :columns] = np.rint(resampled)
    return padded, (rows / height, columns / width)


def paste(
    masks: Array, boxes: Array, size: tuple[int, int], threshold: float = 0.5
) -> Array:
    """Lay masks over their boxes in full-size images, exact to half a pixel.

    Args:
        masks: (N, h, w) float array in [0, 1].
        boxes: (N, 4) array, x1, y1, x2, y2 in pixels.
        size: (height, width) of the image in pixels.
        threshold: a pixel belongs to the instance from this value on; at least 0.5.

    Returns:
        (N, height, width) bool array.
    """
    full = np.zeros((len(masks), *size), bool)
    for image, mask, (x1, y1, x2, y2) in zip(full, masks, boxes, strict=True):
        top, rows = _bilinear(float(y1), float(y2), mask.shape[0], size[0])
        left, columns = _bilinear(float(x1), float(x2), mask.shape[1], size[1])
        patch = rows @ mask @ columns.T >= threshold
        image[top : top + len(rows), left : left + len(columns)] = patch
    return full


def _bilinear(start: float, end: float, cells: int, pixels: int) -> tuple[int, Array]:
    """Weigh the cells of a mask for each pixel whose centre is in its box.

    Returns:
        The first pixel and a (P, cells) float32 matrix.
    """
    first = max(0, math.ceil(start - 0.5))
    last = min(pixels - 1, math.floor(end - 0.5))
    centres = np.arange(first, last + 1) + 0.5
    position = (centres - start) * (cells / max(end - start, 1e-6)) - 0.5
    distance = np.abs(position[:, None] - np.arange(cells))
    return first, np.maximum(1.0 - distance, 0.0).astype(np.float32)


def _resample(image: Array, size: int, axis: int, taps: Iterable[Taps]) -> Array:
    """Resample (h, w, C) along one of the first two axes; float32."""
    image = np.moveaxis(image, axis, 0)
    resampled = np.empty((size, *image.shape[1:]), np.float32)
    for row, (first, weights) in zip(resampled, taps, strict=True):
        pixels = image[first : first + len(weights)].astype(np.float32)
        np.einsum("i,i...->...", weights, pixels, out=row)
    return np.moveaxis(resampled, 0, axis)


def _resample_exactly(
    image: Array, size: int, axis: int, taps: Iterable[Taps]
) -> Array:
    """Resample (h, w, C) along one axis with Pillow's weights of 22 bits; uint8."""
    image = np.moveaxis(image, axis, 0)
    resampled = np.empty((size, *image.shape[1:]), np.uint8)
    for row, (first, weights) in zip(resampled, taps, strict=True):
        whole = np.trunc(weights * 2**22 + np.copysign(0.5, weights))
        pixels = image[first : first + len(weights)].astype(np.float64)
        # Whole numbers below 2 ** 53: their sum is exact.
        total = np.einsum("i,i...->...", whole, pixels) + 2**21
        row[:] = np.clip(np.floor(total / 2**22), 0, 255)
    return np.moveaxis(resampled, 0, axis)


def _filters(
    old: int, whole: int, start: int, count: int, interpolation: str
) -> Iterator[Taps]:
    """Yield first pixel and weights of the new pixels from `start` on, as Pillow's.

    The `old` pixels become `whole` new ones, of which `count` are wanted.
    """
    kernel, reach = {"bicubic": (_cubic, 2), "bilinear": (_triangle, 1)}[interpolation]
    step = old / whole
    widening = max(step, 1.0)
    for i in range(start, start + count):
        centre = (i + 0.5) * step
        first = max(0, int(centre - reach * widening + 0.5))
        last = min(old, int(centre + reach * widening + 0.5))
        positions = np.arange(first, last) + 0.5
        weights = kernel(np.abs(positions - centre) / widening)
        yield first, weights / weights.sum()


def _triangle(x: Array) -> Array:
    return np.maximum(1 - x, 0)


def _cubic(x: Array) -> Array:
    """Keys 1981, with a = -0.5; x from 0."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _triangles(old: int, new: int) -> Iterator[Taps]:
    """Yield the first pixel and the weights of the pixels of each new pixel."""
    step = np.float32(old) / np.float32(new)
    radius = max(step, np.float32(1))
    for i in range(new):
        centre = (np.float32(i) + np.float32(0.5)) * step
        first = max(0, math.ceil(centre - radius - np.float32(0.5)))
        last = min(old - 1, math.floor(centre + radius - np.float32(0.5)))
        centres = np.arange(first, last + 1, dtype=np.float32) + np.float32(0.5)
        distance = centres - centre
        weights = np.maximum(1 - np.abs(distance) / radius, 0)
        yield first, weights / weights.sum()


def _load(image: PathName | Array, num_channels: int) -> Array:
    """Return (H, W, C) uint8."""
    if isinstance(image, str | PathLike):
        array = _read_file(image, num_channels)
    else:
        array = np.asarray(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], num_channels, axis=-1)
    if array.ndim == 3 and array.shape[-1] == 4 and num_channels == 3:
        array = array[..., :3]  # alpha is ignored
    if array.ndim != 3 or array.shape[-1] != num_channels or 0 in array.shape:
        raise ValueError(
            f"Expected an image (H, W, {num_channels}). Received shape {array.shape}"
        )
    return _as_uint8(array)


def _as_uint8(array: Array) -> Array:
    """Bring values to 0..255 by the rules of `kvision.detect`, or refuse them."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if array.dtype.kind not in "uif":
        raise ValueError(f"Expected numbers in 0..255. Received dtype {array.dtype}")
    low, high = float(array.min()), float(array.max())
    looks_scaled = array.dtype.kind == "f" and 0 < high <= 1
    if not (low >= 0 and high <= 255) or looks_scaled:
        raise ValueError(
            f"Expected values in 0..255. Received: {low:g} to {high:g}"
            + ("; multiply by 255" if looks_scaled else "")
        )
    return np.rint(array).astype(np.uint8)


def _read_file(path: PathName, num_channels: int) -> Array:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError(
            "Image files need Pillow (pip install pillow); arrays do not."
        ) from error
    try:
        with Image.open(path, formats=_FORMATS) as file:
            return _pixels(ImageOps.exif_transpose(file), num_channels)
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise whatever they trip over
        raise ValueError(f"{path} cannot be read as an image: {error}") from None


def _pixels(image: Any, num_channels: int) -> Array:
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        raise ValueError(f"its mode is {image.mode!r}; scale its values to 0..255")
    if image.mode in ("P", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
    return np.asarray(image.convert({1: "L", 4: "RGBA"}.get(num_channels, "RGB")))


def _grey(photo: Array) -> Array:
    """Weigh colours; (H, W, 1) uint8."""
    values = photo @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.rint(values).astype(np.uint8)[..., None]


def _read_description(path: PathName, task: str | None = None) -> dict[str, Any]:
    """Read what a file says about itself, and refuse one of another task."""
    try:
        with zipfile.ZipFile(path) as archive:
            description = json.loads(archive.read("kvision.json"))
    except (zipfile.BadZipFile, KeyError):
        raise ValueError(
            f"{path} does not say how its images are made. Expected a file that "
            "kvision.export.tflite wrote (other tools drop what follows the model)."
        ) from None
    # The first files, all of detectors, did not say.
    found = description.setdefault("task", "detection")
    if task not in (None, found):
        names = {"detection": "Detector", "classification": "Classifier"}
        raise ValueError(
            f"{path} is for {found}: open it with {names.get(found, found)}, not with "
            f"{names[str(task)]}"
        )
    return description


def _runner(path: PathName, num_threads: int | None) -> Callable[..., dict[str, Array]]:
    interpreter = _interpreter_class()(str(path), num_threads=num_threads)
    return interpreter.get_signature_runner()


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError:
            raise ImportError(
                "kvision_edge needs LiteRT: pip install ai-edge-litert"
            ) from None
    return Interpreter


def _run_lengths(mask: Array) -> dict[str, Any]:
    """Encode a mask column by column: lengths of runs, the first of 0s."""
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(changes, prepend=0, append=flat.size).tolist()
    starts_with_object = flat[:1].any()
    return {
        "size": list(mask.shape),
        "counts": [0, *counts] if starts_with_object else counts,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Detect in photos or classify them, and print a line of json for each.

    Args:
        arguments: those of the command line by default.
    """
    parser = argparse.ArgumentParser(
        description="Run a detector or a classifier on photos; the file says which."
    )
    parser.add_argument("model", help="TFLite file of kvision.export.tflite")
    parser.add_argument("photos", nargs="+", help="image files")
    parser.add_argument("--score-threshold", type=float, default=0.5, help="detectors")
    parser.add_argument("--top", type=int, default=5, help="classifiers: best classes")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(arguments)
    try:
        run = _opened(options)
        for photo in options.photos:
            found = run(photo)
            print(json.dumps({"path": photo, **found.to_dict()}), flush=True)
    except (ImportError, OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def _opened(
    options: argparse.Namespace,
) -> Callable[[str], "Detections | Classifications"]:
    """Open the file as what it is."""
    if _read_description(options.model)["task"] == "classification":
        classifier = Classifier(options.model, options.threads)
        return lambda photo: classifier.classify(photo, options.top)
    detector = Detector(options.model, options.threads)
    return lambda photo: detector.detect(photo, options.score_threshold)


if __name__ == "__main__":
    main()
