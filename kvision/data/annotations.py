"""COCO instances files: read, checked item by item, turned into records.

This is the one place that knows the faults of annotations and what is done about
each. `kvision.data.coco` raises the errors or leaves their culprits out; `kvision
check` prints all of it.
"""

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kvision.data.findings import DataError, Finding, Report
from kvision.data.images import ImageInfo, scan_image
from kvision.data.masks import Segmentation, SegmentationError, parse_segmentation

__all__ = ["Instance", "Record", "examine", "read_annotations"]

Item = dict[str, Any]
Progress = Callable[[int, int], None]

_TINY = 10  # images with a side below this many pixels get a warning
_DISAGREE = 0.5  # IoU of the box and the extents of its mask below which both differ
_THREADS = 8


@dataclass(slots=True)
class Instance:
    """One object: its class, box and mask.

    Attributes:
        box: (4,) float32 x1, y1, x2, y2 in pixels, inside the image, not empty.
        category_id: of the file.
        is_crowd: a region with many objects, not annotated one by one.
        segmentation: checked mask, or None.
        annotation_id: of the file.
    """

    box: np.ndarray
    category_id: int
    is_crowd: bool
    segmentation: Segmentation | None
    annotation_id: Any = None


@dataclass(slots=True)
class Record:
    """One image and its objects.

    Attributes:
        image_id: of the file.
        path: of the image.
        size: (height, width) in pixels after EXIF orientation.
        instances: its objects, in the order of the file.
        info: header of the image file.
    """

    image_id: int
    path: str
    size: tuple[int, int]
    instances: list[Instance] = field(default_factory=list)
    info: ImageInfo | None = None


def read_annotations(annotations: Any) -> tuple[Item, str]:
    """Read a COCO instances file and check its outline.

    Args:
        annotations: path of the json, or its content as a dict.

    Returns:
        The content, and a name for it in messages.

    Raises:
        DataError: it is no json (with line and column) or lacks one of the lists
            `images`, `annotations` and `categories`.
    """
    if isinstance(annotations, dict):
        content, source = annotations, "annotations"
    else:
        source = os.fspath(annotations)
        content = _read_json(source)
    for key in ("images", "annotations", "categories"):
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            _fail(
                source,
                f'no list of objects "{key}" in it',
                "A COCO instances file has images, annotations and categories.",
            )
    return content, source


def examine(
    annotations: Any,
    images: str | os.PathLike[str],
    report: Report,
    *,
    need_masks: bool = False,
    progress: Progress | None = None,
) -> tuple[list[Record], dict[int, str]]:
    """Check a COCO data set and make records of what is sound.

    Args:
        annotations: path of the json, or its content as a dict.
        images: folder in which `file_name` is looked up.
        report: receives the findings.
        need_masks: whether an object without a segmentation is an error.
        progress: called with (images done, images in all) as headers are read.

    Returns:
        Records in the order of the file, without images that have errors and without
        objects that have errors or nothing left; category id -> name by ascending id.

    Raises:
        DataError: the file has not the outline of a COCO instances file.
    """
    content, source = read_annotations(annotations)
    errors = report.num_errors
    report.num_images += len(content["images"])
    report.num_annotations += len(content["annotations"])
    categories = _categories(content["categories"], source, report)
    records = _records(content["images"], Path(images), source, report, progress)
    reader = _InstanceReader(source, report, categories, need_masks)
    reader.read(content["annotations"], records, _ids(content["images"]))
    if report.num_errors == errors:
        _refuse_empty(records, source, report)
    _note_content(content, records, categories, source, report)
    return [record for record in records.values() if record.info], categories


def _read_json(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        _fail(path, "no such file", "Check the path of the annotations.")
    except json.JSONDecodeError as error:
        _fail(
            path,
            f"broken json at line {error.lineno}, column {error.colno}: {error.msg}",
            "Export the annotations again.",
        )
    except (UnicodeDecodeError, OSError) as error:
        _fail(path, f"cannot be read as json ({error})", "Check the file.")


def _fail(where: str, message: str, remedy: str) -> None:
    raise DataError(Finding("error", "B1", where, message, remedy)) from None


def _ids(images: list[Item]) -> set[Any]:
    return {_hashable(image.get("id")) for image in images}


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else repr(value)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# Categories


def _categories(items: list[Item], source: str, report: Report) -> dict[int, str]:
    """Read id -> name; ids need be neither contiguous nor in order."""
    names: dict[int, str] = {}
    for number, item in enumerate(items):
        where = f"{source}, category number {number}"
        category_id: Any = item.get("id")
        name = item.get("name")
        if not _is_id(category_id) or not isinstance(name, str) or not name:
            message = f"an integer id and a name expected, received {item!r:.80}"
            _error(report, "B2", where, message)
        elif category_id in names or name in names.values():
            message = f"id {category_id} or name {name!r} occurs twice"
            _error(report, "B2", where, message, "Give each class one id and name.")
        else:
            names[category_id] = name
    if not items:
        _error(report, "B1", source, "no categories")
    ordered = dict(sorted(names.items()))
    if list(ordered) != list(range(1, len(ordered) + 1)):
        mapping = ", ".join(f"{i}={n}" for i, n in list(ordered.items())[:8])
        message = f"category ids are not 1..{len(ordered)}: {mapping}"
        remedy = "Labels follow ascending ids; scores map them back by name."
        report.add(Finding("info", "B2", source, message, remedy))
    return ordered


# Images


def _records(
    items: list[Item],
    folder: Path,
    source: str,
    report: Report,
    progress: Progress | None,
) -> dict[int, Record]:
    """Check the list of images and read the header of every file."""
    if not items:
        _error(report, "A15", source, "no images in it")
    elif not folder.is_dir():
        _error(report, "A15", str(folder), "no such folder of images")
        return {}
    paths = _image_paths(items, folder, source, report)
    records = {}
    with ThreadPoolExecutor(_THREADS) as threads:
        scans = threads.map(_scan, [path for path, _ in paths.values()])
        for done, (image_id, scan) in enumerate(zip(paths, scans, strict=True), 1):
            path, item = paths[image_id]
            where = f"{path} (image {image_id})"
            info = _header(scan, item, where, report)
            size = (info.height, info.width) if info else (0, 0)
            records[image_id] = Record(image_id, path, size, info=info)
            if progress:
                progress(done, len(paths))
    return records


def _image_paths(
    items: list[Item], folder: Path, source: str, report: Report
) -> dict[int, tuple[str, Item]]:
    paths: dict[int, tuple[str, Item]] = {}
    names: set[str] = set()
    for number, item in enumerate(items):
        image_id: Any = item.get("id")
        name = item.get("file_name")
        where = f"{source}, image {image_id!r}"
        if not _is_id(image_id) or not isinstance(name, str) or not name:
            where = f"{source}, image number {number}"
            message = f"an integer id and a file_name expected, received {item!r:.80}"
            _error(report, "B1", where, message)
        elif image_id in paths:
            _error(report, "B10", where, "two images have this id")
        elif not _is_inside(folder, name):
            message = f"file_name {name!r} leads out of the image folder"
            _error(report, "A14", where, message, "Use names relative to the folder.")
        else:
            if name in names:
                message = f"file_name {name!r} is listed more than once"
                report.add(Finding("warning", "A13", where, message))
            names.add(name)
            paths[image_id] = (str(folder / name), item)
    return paths


def _is_inside(folder: Path, name: str) -> bool:
    """Whether a name stays in its folder, links followed.

    A link inside the folder may point anywhere the folder itself could; one that
    climbs is refused, since a json from a stranger names the files.
    """
    if os.path.isabs(name) or ".." in Path(name).parts or "\0" in name:
        return False
    path = folder / name
    if not path.is_symlink():
        return True
    return path.resolve().is_relative_to(folder.resolve())


def _scan(path: str) -> ImageInfo | DataError:
    try:
        return scan_image(path)
    except DataError as error:
        return error


def _header(
    scan: ImageInfo | DataError, item: Item, where: str, report: Report
) -> ImageInfo | None:
    """Compare the header of a file with the json; None when they do not go together."""
    if isinstance(scan, DataError):
        for found in scan.findings:
            report.add(Finding("error", found.code, where, found.message, found.remedy))
        return None
    stated = (item.get("height"), item.get("width"))
    actual = (scan.height, scan.width)
    if None in stated:
        message = "no width and height in the json, taken from the file"
        report.add(Finding("info", "A12", where, message))
    elif stated != actual:
        _size_differs(stated, scan, where, report)
        return None
    _note_header(scan, where, report)
    return scan


def _size_differs(
    stated: tuple[Any, ...], scan: ImageInfo, where: str, report: Report
) -> None:
    message = (
        f"the json says {stated[1]} x {stated[0]} pixels (width x height), the file "
        f"has {scan.width} x {scan.height}"
    )
    remedy = "Use the images that were annotated, in their size."
    if scan.orientation >= 5 and stated == (scan.width, scan.height):
        message += f" after its EXIF orientation {scan.orientation}"
        remedy = "The annotations ignore EXIF: remove the tag from a copy of the file."
    _error(report, "A12", where, message, remedy)


def _note_header(scan: ImageInfo, where: str, report: Report) -> None:
    suffix = Path(scan.path).suffix.lower().lstrip(".")
    known = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "bmp": "BMP", "gif": "GIF"}
    notes = []
    if min(scan.height, scan.width) < _TINY:
        message = f"only {scan.width} x {scan.height} pixels"
        report.add(Finding("warning", "A11", where, message))
    if suffix in known and known[suffix] != scan.format:
        notes.append(("A6", f"named .{suffix}, but it is {scan.format}; read as such"))
    if scan.num_frames > 1:
        notes.append(("A9", f"{scan.num_frames} frames; the first is used"))
    if scan.orientation != 1:
        notes.append(("A7", f"EXIF orientation {scan.orientation} is applied"))
    if scan.mode not in ("RGB", "L", "RGBA"):
        notes.append(("A8", f"pixels of mode {scan.mode} are converted to RGB"))
    report.add(*(Finding("info", code, where, message) for code, message in notes))


# Annotations


class _InstanceReader:
    """Turns annotations into instances, one by one, and reports what is wrong."""

    def __init__(
        self,
        source: str,
        report: Report,
        categories: dict[int, str],
        need_masks: bool,
    ) -> None:
        self.source = source
        self.report = report
        self.categories = categories
        self.need_masks = need_masks
        self.seen: set[Any] = set()
        self.raw_boxes: dict[int, list[tuple[Any, Any]]] = defaultdict(list)

    def read(
        self, items: Iterable[Item], records: dict[int, Record], image_ids: set[Any]
    ) -> None:
        for number, item in enumerate(items):
            where = f"{self.source}, annotation {item.get('id', f'number {number}')}"
            self._check_ids(item, where)
            image_id = _hashable(item.get("image_id"))
            record = records.get(image_id)
            if record is None:
                if image_id not in image_ids:
                    message = f"there is no image {image_id!r}; left out"
                    self._warn("B1", where, message)
            elif record.info is not None:
                instance = self._instance(item, record.size, where)
                if instance is not None:
                    record.instances.append(instance)

    def _check_ids(self, item: Item, where: str) -> None:
        annotation_id = _hashable(item.get("id"))
        if annotation_id in self.seen:
            self._warn("B10", where, "the id occurs twice; renumbered for evaluation")
        if not annotation_id:
            message = f"id {annotation_id!r}; renumbered from 1 for evaluation"
            self.report.add(Finding("info", "B10", where, message))
        self.seen.add(annotation_id)
        missing = [key for key in ("iscrowd", "area") if key not in item]
        if missing:
            message = f"no {' and no '.join(missing)}; filled in for evaluation"
            self.report.add(Finding("info", "B10", where, message))

    def _instance(
        self, item: Item, size: tuple[int, int], where: str
    ) -> Instance | None:
        if _hashable(item.get("category_id")) not in self.categories:
            message = f"unknown category_id {item.get('category_id')!r}"
            known = f"Known: {list(self.categories)[:20]}."
            _error(self.report, "B2", where, message, known)
            return None
        try:
            segmentation = self._segmentation(item, size)
        except SegmentationError as error:
            _error(self.report, error.code, where, str(error), "Draw it again.")
            return None
        box = self._box(item, segmentation, size, where)
        if box is None:
            return None
        return Instance(
            box,
            item["category_id"],
            bool(item.get("iscrowd", 0)),
            segmentation,
            item.get("id"),
        )

    def _segmentation(self, item: Item, size: tuple[int, int]) -> Segmentation | None:
        value = item.get("segmentation")
        if value is None or (isinstance(value, list) and not value):
            if self.need_masks and not item.get("iscrowd"):
                raise SegmentationError(
                    "B11", "no segmentation; pass masks=False to train on boxes alone"
                )
            return None
        return parse_segmentation(value, size)

    def _box(
        self,
        item: Item,
        segmentation: Segmentation | None,
        size: tuple[int, int],
        where: str,
    ) -> np.ndarray | None:
        """Choose the box: COCO's, or the extents of the mask where they disagree."""
        extents = segmentation.box if segmentation else None
        if segmentation and segmentation.is_empty():
            self._warn("B14", where, "the mask is empty; left out")
            return None
        value: Any = item.get("bbox")
        if value is None and extents:
            message = "no bbox; taken from the segmentation"
            self.report.add(Finding("info", "B14", where, message))
            return self._clip(extents, size, where)
        if not _is_box(value) or not all(map(math.isfinite, value)):
            message = f"bbox {value!r:.80} is not 4 finite numbers"
            _error(self.report, "B5", where, message)
            return None
        x, y, width, height = value
        self.raw_boxes[item["image_id"]].append((item.get("id"), value))
        if width <= 0 or height <= 0:
            self._warn("B4", where, f"bbox {value} has no area; left out")
            return None
        box = (x, y, x + width, y + height)
        if extents and _iou(box, extents) < _DISAGREE:
            message = f"bbox {value} is not the box of its mask; the mask's is used"
            self._warn("B14", where, message)
            box = extents
        return self._clip(box, size, where)

    def _clip(
        self, box: tuple[float, ...], size: tuple[int, int], where: str
    ) -> np.ndarray | None:
        height, width = size
        x1, y1, x2, y2 = box
        inside = (max(x1, 0), max(y1, 0), min(x2, width), min(y2, height))
        if inside[2] <= inside[0] or inside[3] <= inside[1]:
            message = f"the box lies outside the {width} x {height} image; left out"
            self._warn("B6", where, message)
            return None
        # COCO's own boxes exceed their images by rounding; that is no finding.
        if max(abs(a - b) for a, b in zip(box, inside, strict=True)) > 1:
            message = f"the box reaches out of the {width} x {height} image; clipped"
            self._warn("B6", where, message)
        return np.asarray(inside, np.float32)

    def _warn(self, code: str, where: str, message: str) -> None:
        self.report.add(Finding("warning", code, where, message))


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 4
        and all(isinstance(v, int | float) for v in value)
    )


def _iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return both / (total - both)


def _error(
    report: Report, code: str, where: str, message: str, remedy: str = ""
) -> None:
    report.add(Finding("error", code, where, message, remedy))


# The whole


def _refuse_empty(records: dict[int, Record], source: str, report: Report) -> None:
    if not any(record.instances for record in records.values()):
        _error(report, "A15", source, "none of its images has a usable object")


def _note_content(
    content: Item,
    records: dict[int, Record],
    categories: dict[int, str],
    source: str,
    report: Report,
) -> None:
    """Report what only shows in all annotations together."""
    instances = [i for record in records.values() for i in record.instances]
    crowds = sum(instance.is_crowd for instance in instances)
    if crowds:
        message = f"{crowds} crowd regions: not trained on, ignored in evaluation"
        report.add(Finding("info", "B9", source, message))
    used = {instance.category_id for instance in instances}
    unused = [name for key, name in categories.items() if key not in used]
    if instances and unused:
        shown = ", ".join(unused[:8])
        message = f"{len(unused)} classes without an object: {shown}"
        report.add(Finding("info", "B2", source, message))
    if any("keypoints" in item for item in content["annotations"]):
        message = "keypoints are not used by detectors of boxes and masks"
        report.add(Finding("info", "B15", source, message))
    _suspect_boxes(content["annotations"], records, source, report)


def _suspect_boxes(
    items: list[Item], records: dict[int, Record], source: str, report: Report
) -> None:
    """Guess whether boxes are not x, y, width, height in pixels."""
    known = [
        (item.get("id"), item["bbox"], records[item["image_id"]].size)
        for item in items
        if _is_box(item.get("bbox")) and _hashable(item.get("image_id")) in records
    ]
    known = [one for one in known if min(one[2]) >= _TINY]
    if not known:
        return
    boxes = np.array([box for _, box, _ in known], np.float64)
    sizes = np.array([size for _, _, size in known], np.float64)
    examples = ", ".join(f"annotation {i}: {box}" for i, box, _ in known[:3])
    if (np.abs(boxes) <= 1.0).all():
        message = f"boxes look normalised to 0..1, not pixels ({examples})"
        remedy = "Multiply by the width and height of the image."
        report.add(Finding("warning", "B7", source, message, remedy))
        return
    outside = boxes[:, :2] + boxes[:, 2:] > sizes[:, ::-1] + 1
    as_corners = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sizes[:, ::-1] + 1)
    if outside.any(axis=1).mean() > 0.2 and as_corners.all(axis=1).mean() > 0.99:
        message = f"boxes look like x1, y1, x2, y2, not x, y, w, h ({examples})"
        remedy = "COCO's bbox is x, y, width, height."
        report.add(Finding("warning", "B7", source, message, remedy))
