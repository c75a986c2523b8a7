"""`kvision predict`: what is found in photos and videos, drawn and as json."""

import itertools
import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from kvision.cli.arguments import load_model
from kvision.export.classifier import is_classifier
from kvision.predict import Classifications, Detections, classify, detect, frames

__all__ = ["run"]

Result = TypeVar("Result", Detections, Classifications)

_VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}


def run(
    model: Path,
    images: Sequence[str],
    score_threshold: float,
    batch_size: int,
    on_error: str,
    output: Path,
    top: int = 5,
) -> dict[str, Any]:
    """Find objects or classes, and write a picture of each photo and one json file.

    Of a detector `NAME_detections.png` or `.mp4` and detections.json, of a classifier
    `NAME_classes.png` and classifications.json.

    Args:
        model: a `.keras` file or a run folder.
        images: files, folders, patterns and, for a detector, videos.
        score_threshold: the least score of a detection that is kept.
        batch_size: images that go through the model at once.
        on_error: "raise" or "skip" what cannot be decoded.
        output: folder to write to.
        top: how many classes of a classifier are shown.

    Returns:
        Counts and the files written.
    """
    loaded = load_model(model)
    settings: dict[str, Any] = {"batch_size": batch_size, "on_error": on_error}
    if is_classifier(loaded):
        return _classify(loaded, images, {"top": top, **settings}, output)
    settings["score_threshold"] = score_threshold
    return _detect(loaded, images, settings, output)


def _classify(
    model: Any, images: Sequence[str], settings: dict[str, Any], output: Path
) -> dict[str, Any]:
    output.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    found: list[dict[str, Any]] = []
    table = Table("image", "class", "score", "then")
    for result in _progress(
        classify(model, list(images), stream=True, **settings), "photos"
    ):
        files.append(_free_name(output, result.path, ".png", files, "classes"))
        result.plot(files[-1])
        found.append(result.to_dict())
        (name, score), *others = result.top
        then = ", ".join(f"{other} {value:.3f}" for other, value in others)
        table.add_row(str(result.path), name, f"{score:.3f}", then)
    Console().print(table)
    files.append(output / "classifications.json")
    files[-1].write_text(json.dumps(found, indent=2))
    print(f"{len(found)} images: {output}/")
    return {"images": len(found), "classifications": found, "files": files}


def _detect(
    detector: Any, images: Sequence[str], settings: dict[str, Any], output: Path
) -> dict[str, Any]:
    output.mkdir(parents=True, exist_ok=True)
    is_video = [Path(name).suffix.lower() in _VIDEOS for name in images]
    videos = [Path(name) for name in itertools.compress(images, is_video)]
    photos = [n for n, video in zip(images, is_video, strict=True) if not video]
    files: list[Path] = []
    found: list[Detections] = []
    if photos:
        for result in _progress(
            detect(detector, photos, stream=True, **settings), "photos"
        ):
            files.append(_free_name(output, result.path, ".png", files))
            result.plot(files[-1])
            found.append(result)
    numbers = [len(result) for result in found]
    for video in videos:
        files.append(_free_name(output, video, ".mp4", files))
        results = detect(detector, frames(video), stream=True, **settings)
        numbers += _write_video(files[-1], _progress(results, video.name), video)
    if photos:
        files.append(output / "detections.json")
        files[-1].write_text(json.dumps(_as_coco(found, detector.class_names)))
    print(f"{sum(numbers)} detections in {len(numbers)} images: {output}/")
    return {"images": len(numbers), "detections": sum(numbers), "files": files}


def _progress(results: Iterable[Result], what: str) -> Iterable[Result]:
    console = Console(stderr=True)
    return track(results, what, console=console, disable=not console.is_terminal)


def _free_name(
    folder: Path,
    source: Path | None,
    suffix: str,
    taken: Sequence[Path],
    what: str = "detections",
) -> Path:
    """Name a result after its source; photos of two folders may be called the same."""
    stem = f"{source.stem if source else 'image'}_{what}"
    names = (f"{stem}{number or ''}{suffix}" for number in itertools.count())
    return next(folder / name for name in names if folder / name not in taken)


def _write_video(path: Path, results: Iterable[Detections], source: Path) -> list[int]:
    """Write the drawn frames as a video; return the detections of each frame."""
    import av

    with av.open(str(source)) as original:
        rate = original.streams.video[0].average_rate or Fraction(25)
    numbers = []
    with av.open(str(path), "w") as video:
        stream = None
        for result in results:
            numbers.append(len(result))
            picture = np.asarray(result.draw())
            if stream is None:
                # Encoders want even sides.
                height, width = (side - side % 2 for side in picture.shape[:2])
                stream = video.add_stream(
                    "mpeg4", rate=rate, width=width, height=height
                )
                stream.bit_rate = 8_000_000
            pixels = np.ascontiguousarray(picture[:height, :width])
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        if stream is not None:
            video.mux(stream.encode())
    return numbers


def _as_coco(found: Sequence[Detections], class_names: Sequence[str]) -> dict[str, Any]:
    """Write detections as a COCO data set: annotations with scores."""
    images = [
        {
            "id": number,
            "file_name": str(result.path),
            "height": result.image_size[0],
            "width": result.image_size[1],
        }
        for number, result in enumerate(found, 1)
    ]
    category_ids = range(1, len(class_names) + 1)
    annotations = [
        {"id": 0, **item, "area": item["bbox"][2] * item["bbox"][3], "iscrowd": 0}
        for number, result in enumerate(found, 1)
        for item in result.to_coco(number, category_ids)
    ]
    for number, item in enumerate(annotations, 1):
        item["id"] = number
    categories = [
        {"id": number, "name": name} for number, name in enumerate(class_names, 1)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}
