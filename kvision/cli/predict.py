"""`kvision predict`: detections of photos and videos, drawn and as a COCO json."""

import itertools
import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from kvision.cli.arguments import load_detector
from kvision.predict import Detections, detect, frames

__all__ = ["run"]

_VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}


def run(
    model: Path,
    images: Sequence[str],
    score_threshold: float,
    batch_size: int,
    on_error: str,
    output: Path,
) -> dict[str, Any]:
    """Detect objects and write `NAME_detections.png` or `.mp4`, and detections.json.

    Args:
        model: a `.keras` file or a run folder.
        images: files, folders, patterns and videos.
        score_threshold: the least score of what is kept.
        batch_size: images that go through the model at once.
        on_error: "raise" or "skip" what cannot be decoded.
        output: folder to write to.

    Returns:
        Counts and the files written.
    """
    detector = load_detector(model)
    output.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "score_threshold": score_threshold,
        "batch_size": batch_size,
        "on_error": on_error,
    }
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


def _progress(results: Iterable[Detections], what: str) -> Iterable[Detections]:
    console = Console(stderr=True)
    return track(results, what, console=console, disable=not console.is_terminal)


def _free_name(
    folder: Path, source: Path | None, suffix: str, taken: Sequence[Path]
) -> Path:
    """Name a result after its source; photos of two folders may be called the same."""
    stem = f"{source.stem if source else 'image'}_detections"
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
