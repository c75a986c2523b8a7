"""Look for every fault of a data set before training; change nothing."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from kvision.data.annotations import Record, examine
from kvision.data.findings import DataError, Finding, Report
from kvision.data.images import load_image

__all__ = ["Finding", "Report", "check", "decode_all"]

Progress = Callable[[int, int], None]
DataSet = tuple[Any, str | os.PathLike[str]]

_THREADS = os.cpu_count() or 4
_DARK = 2048  # of 65535: a 16-bit image below it keeps fewer than 3 of its 8 bits


def check(
    annotations: Any,
    images: str | os.PathLike[str] | None = None,
    *,
    others: "list[DataSet] | tuple[DataSet, ...]" = (),
    max_instances: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check COCO data: annotations, image headers, pixels, doubles across sets.

    Args:
        annotations: path of a COCO json or its content. Without `images`, a folder in
            which `kvision.data.find_coco` finds all sets.
        images: folder of the images.
        others: (annotations, images) of further sets, as for validation.
        max_instances: report images with more objects than this.
        progress: called with (images done, images in all) as images are decoded.

    Returns:
        Report of all findings. Faults A1..A15 and B1..B15 of the documentation.
    """
    if images is None:
        from kvision.data.coco import find_coco

        sets: list[DataSet] = [one[1:] for one in find_coco(annotations)]
    else:
        sets = [(annotations, images)]
    report = Report()
    all_records = [_examine(one, report) for one in (*sets, *others)]
    total = sum(len(records) for records, _ in all_records)
    done = 0
    hashes: list[dict[bytes, str]] = []
    for records, _ in all_records:
        digests: dict[bytes, str] = {}
        for record, found in _decode(records):
            done += 1
            if isinstance(found, DataError):
                _add_error(report, record, found)
            else:
                _note_double(digests, found, record, report)
            if progress:
                progress(done, total)
        _note_dark(records, report)
        _note_crowded(records, max_instances, report)
        hashes.append(digests)
    _note_shared(hashes, report)
    _note_categories([categories for _, categories in all_records], report)
    return report


def decode_all(records: list[Record], report: Report) -> set[int]:
    """Decode every image once; report what is damaged.

    Args:
        records: of sound headers.
        report: receives an error for each image that cannot be decoded.

    Returns:
        Ids of those images.
    """
    broken = set()
    for record, found in _decode(records):
        if isinstance(found, DataError):
            _add_error(report, record, found)
            broken.add(record.image_id)
    return broken


def _examine(one: DataSet, report: Report) -> tuple[list[Record], dict[int, str]]:
    try:
        return examine(*one, report)
    except DataError as error:
        report.add(*error.findings)
        return [], {}


def _decode(records: list[Record]) -> Iterator[tuple[Record, bytes | DataError]]:
    """Decode images in threads; yields a digest of the pixels or the error."""

    def digest(record: Record) -> bytes | DataError:
        try:
            image = load_image(record.path)
        except DataError as error:
            return error
        return _digest(image)

    with ThreadPoolExecutor(_THREADS) as threads:
        yield from zip(records, threads.map(digest, records), strict=True)


def _digest(image: np.ndarray) -> bytes:
    size = f"{image.shape[0]}x{image.shape[1]}".encode()
    return hashlib.blake2b(image.data, digest_size=16, person=size).digest()


def _add_error(report: Report, record: Record, error: DataError) -> None:
    for found in error.findings:
        where = f"{record.path} (image {record.image_id})"
        report.add(Finding("error", found.code, where, found.message, found.remedy))


def _note_double(
    digests: dict[bytes, str], digest: bytes, record: Record, report: Report
) -> None:
    first = digests.setdefault(digest, record.path)
    if first != record.path:
        message = f"the same picture as {first}"
        report.add(Finding("warning", "A13", record.path, message))


def _note_shared(hashes: list[dict[bytes, str]], report: Report) -> None:
    """Report pictures that stand in several sets: scores on them mean nothing."""
    seen: dict[bytes, str] = {}
    for digests in hashes:
        for digest, path in digests.items():
            if digest in seen:
                message = f"the same picture as {seen[digest]} of another set"
                remedy = "Keep it in one of training and validation."
                report.add(Finding("warning", "A13", path, message, remedy))
        seen = {**digests, **seen}


def _note_categories(sets: list[dict[int, str]], report: Report) -> None:
    """Report sets whose labels would differ if each took its own order of classes."""
    known = [list(categories.values()) for categories in sets if categories]
    for names in known[1:]:
        if names != known[0]:
            message = f"classes {names[:8]} in one set, {known[0][:8]} in another"
            remedy = "Pass class_names of the training set when loading the other."
            report.add(Finding("warning", "B2", "categories", message, remedy))


def _note_crowded(
    records: list[Record], max_instances: int | None, report: Report
) -> None:
    for record in records:
        count = len(record.instances)
        if max_instances is not None and count > max_instances:
            message = f"{count} objects, max_instances is {max_instances}"
            report.add(Finding("warning", "B8", record.path, message))


def _note_dark(records: list[Record], report: Report) -> None:
    """Report 16-bit images whose values are so small that 8 bits keep nothing."""
    for record in records:
        if record.info is None or not record.info.mode.startswith("I;16"):
            continue
        try:
            with Image.open(record.path) as image:
                brightest = int(np.asarray(image).max())
        except (OSError, ValueError):
            continue
        if brightest < _DARK:
            message = f"16-bit image with values up to {brightest} only: nearly black"
            remedy = "Scale its values up to 65535, or to 255 as an 8-bit image."
            report.add(Finding("warning", "A8", record.path, message, remedy))
