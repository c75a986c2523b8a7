"""COCO instances files and their images as datasets for detectors."""

import difflib
import hashlib
import json
import logging
import os
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from kvision.data.annotations import Record, examine, read_annotations
from kvision.data.findings import DataError, Finding, Report
from kvision.data.image_cache import file_fingerprint
from kvision.data.images import Resize, load_image
from kvision.data.masks import crop_mask
from kvision.data.pipeline import Options, make_dataset

__all__ = ["coco", "find_coco", "split_coco"]

_LOGGER = logging.getLogger("kvision")

Subset = Literal["training", "validation"]


def coco(
    annotations: str | os.PathLike[str] | dict[str, Any],
    images: str | os.PathLike[str],
    *,
    image_size: tuple[int, int],
    batch_size: int,
    resize: Resize = "pad",
    class_names: Sequence[str] | None = None,
    masks: bool = True,
    mask_size: int = 56,
    max_instances: int | None = None,
    validation_split: float | None = None,
    subset: Subset | None = None,
    split_seed: int = 0,
    augment: bool | Sequence[Any] = False,
    shuffle: bool | None = None,
    seed: int = 0,
    first_epoch: int | None = None,
    first_step: int = 0,
    drop_remainder: bool | None = None,
    num_shards: int = 1,
    shard_index: int = 0,
    cache: bool | str | os.PathLike[str] = False,
    on_error: Literal["raise", "skip"] = "raise",
) -> tf.data.Dataset:
    """Make a dataset of a COCO instances file and a folder of images.

    Every annotation and the header of every image is checked first. Errors are raised
    together; whatever is dropped is counted in one warning of the logger "kvision".
    No file is ever changed.

    Args:
        annotations: path of the json, or its content as a dict.
        images: folder in which each `file_name` is looked up.
        image_size: (height, width) of the model's input in pixels.
        batch_size: images in a batch.
        resize: "pad" keeps the aspect ratio and pads at the bottom and right with 0,
            "stretch" does not. As of the model.
        class_names: the classes to keep, in the order of the labels; by default all
            of the file, by ascending category id. Other objects are left out, their
            images stay. Give the training set's here for other sets.
        masks: whether to load masks. True needs a segmentation for every object.
        mask_size: cells along each side of a mask.
        max_instances: objects in an image to which targets are padded; by default
            the largest count of the data. Objects beyond it are left out.
        validation_split: part of the images that is set aside for validation.
        subset: which part to return when `validation_split` is given.
        split_seed: which images are set aside follows from it and from their names.
        augment: False, True for `kvision.data.default_transforms()`, or a list of
            transforms.
        shuffle: whether every epoch has another order. By default it has when
            `augment` is given or `first_epoch` is.
        seed: of order and augmentation.
        first_epoch: makes the dataset endless and begins with this epoch, for
            `fit(..., steps_per_epoch=dataset.steps_per_epoch)` that is resumed. Epoch
            k is the same wherever it began. Without it the dataset is finite, and its
            k-th iteration is epoch k.
        first_step: step of the first epoch with which an endless dataset begins.
        drop_remainder: whether images that do not fill a batch wait for another
            epoch; by default so when shuffling. (A last batch of another size makes
            XLA compile again.) An endless dataset without it fills its last batch.
        num_shards: number of workers that share the data.
        shard_index: which of them this is.
        cache: True keeps decoded images and masks in memory, a path keeps images in
            that folder; no larger than the model can use.
        on_error: "raise" stops at errors; "skip" decodes every image once at the
            start and leaves what is broken out, with a warning that counts and names.

    Returns:
        Dataset of (images, targets). `images` (B, H, W, 3) uint8. `targets` is a dict:

        - gt_boxes (B, G, 4) float32: x1, y1, x2, y2 in pixels of the input, zeros as
          padding. COCO's boxes; extents of the mask where augmentation cut it.
        - gt_labels (B, G) int32: -1 is padding, or a crowd region if it has a box.
        - gt_masks (B, G, m, m) uint8: how much of each cell of a grid over its box an
          object covers, 255 for all. Missing without `masks`.
        - image_ids (B,) int64.
        - image_sizes (B, 2) int32: height and width of what is not padding.
        - original_sizes (B, 2) int32: height and width of the file, EXIF applied.
        - scales (B, 2) float32 (y, x): pixels of the input = original pixels * scale,
          where nothing is augmented.

        It has the attributes class_names, category_ids (by label), image_ids,
        num_images, max_instances, steps_per_epoch, image_size and resize.

    Raises:
        DataError: a `ValueError` that names the files and annotations at fault.
        ValueError: an argument does not fit.
    """
    options = Options(
        image_size=image_size,
        batch_size=batch_size,
        augment=augment,
        shuffle=shuffle,
        seed=seed,
        first_epoch=first_epoch,
        first_step=first_step,
        max_instances=max_instances,
        mask_size=mask_size,
        resize=resize,
        cache=cache,
        num_shards=num_shards,
        shard_index=shard_index,
        drop_remainder=drop_remainder,
    )
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error must be "raise" or "skip". Received: {on_error!r}')
    if (validation_split is None) != (subset is None):
        raise ValueError(
            "validation_split and subset go together. Received: "
            f"validation_split={validation_split}, subset={subset!r}"
        )
    name = annotations if not isinstance(annotations, dict) else "annotations"
    if validation_split is not None and subset is not None:
        annotations = split_coco(annotations, validation_split, subset, split_seed)
    report = Report()
    records, categories = examine(annotations, images, report, need_masks=masks)
    if on_error == "skip":
        records = _decodable(records, report)
    else:
        report.raise_errors()
    labels = _labels(categories, class_names, str(name))
    records = _with_classes(records, labels)
    _refuse_empty(records, labels, str(name))
    _log(report, records, max_instances, str(name))
    return make_dataset(_CocoSource(records, categories, labels, masks), options)


def split_coco(
    annotations: str | os.PathLike[str] | dict[str, Any],
    validation_split: float,
    subset: Subset,
    split_seed: int = 0,
) -> dict[str, Any]:
    """Take the training or the validation images out of one COCO file.

    Which images are set aside depends on their names and `split_seed` only, so that
    adding images moves few of the others.

    Args:
        annotations: path of the json, or its content as a dict.
        validation_split: part of the images for validation, between 0 and 1.
        subset: "training" or "validation".
        split_seed: another one gives another split.

    Returns:
        Content of a COCO file with that part of the images and their annotations.
    """
    if not 0.0 < validation_split < 1.0:
        raise ValueError(
            f"validation_split must lie between 0 and 1. Received: {validation_split}"
        )
    if subset not in ("training", "validation"):
        raise ValueError(
            f'subset must be "training" or "validation". Received: {subset!r}'
        )
    content, source = read_annotations(annotations)
    pictures = content["images"]
    if len(pictures) < 2:
        raise ValueError(f"{source} has {len(pictures)} images, too few to split")

    def rank(image: dict[str, Any]) -> bytes:
        name = f"{split_seed}/{image.get('file_name')}/{image.get('id')}"
        return hashlib.blake2b(name.encode()).digest()

    number = min(max(1, round(len(pictures) * validation_split)), len(pictures) - 1)
    chosen = {id(image) for image in sorted(pictures, key=rank)[:number]}
    kept = [
        image for image in pictures if (id(image) in chosen) == (subset == "validation")
    ]
    ids = {image.get("id") for image in kept}
    instances = [a for a in content["annotations"] if a.get("image_id") in ids]
    return {**content, "images": kept, "annotations": instances}


def find_coco(folder: str | os.PathLike[str]) -> list[tuple[str, Path, Path]]:
    """Find COCO files and their images in a folder.

    Known layouts: `train.json`, `val.json` beside `images/`;
    `annotations/instances_train2017.json` beside `train2017/` or `images/train2017/`;
    `train/_annotations.coco.json` among the images of `train/`; and any other json
    with images and annotations.

    Args:
        folder: where to look, or the path of one json.

    Returns:
        (name, json, image folder) of each set, training first, then validation. The
        name is "train", "val" or "test" where the path tells, or the json's stem.

    Raises:
        ValueError: there is none.
    """
    root = Path(folder)
    if root.is_file():
        files, root = [root], root.parent
    else:
        files = [*root.glob("*.json"), *root.glob("annotations/*.json")]
        files += root.glob("*/_annotations.coco.json")
    named = [f for f in files if f.name.startswith("instances_")]
    files = named or [f for f in files if _is_instances(f)]
    if not files:
        raise ValueError(
            f"No COCO instances json in {folder}. Expected train.json and val.json "
            "beside images/, or annotations/instances_*.json beside the image folders."
        )
    sets = [(_set_name(file), file, _image_folder(file, root)) for file in files]
    order = {"train": 0, "val": 1, "test": 2}
    return sorted(sets, key=lambda one: (order.get(one[0], 3), str(one[1])))


class _CocoSource:
    """Images and objects of records."""

    def __init__(
        self,
        records: list[Record],
        categories: dict[int, str],
        labels: dict[int, int],
        masks: bool,
    ) -> None:
        self.records = records
        self.labels = labels
        self.category_ids = sorted(labels, key=labels.__getitem__)
        self.class_names = [categories[i] for i in self.category_ids]
        self.image_ids = [record.image_id for record in records]
        self.has_masks = masks
        self._grids: dict[tuple[int, int], bytes] = {}

    def __len__(self) -> int:
        return len(self.records)

    def load_image(self, index: int) -> np.ndarray:
        return load_image(self.records[index].path)

    def load_objects(
        self, index: int, cells: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        instances = self.records[index].instances
        boxes = np.zeros((len(instances), 4), np.float32)
        labels = np.zeros(len(instances), np.int32)
        for row, instance in enumerate(instances):
            boxes[row] = instance.box
            labels[row] = -1 if instance.is_crowd else self.labels[instance.category_id]
        return boxes, labels, self._load_grids(index, cells)

    def _load_grids(self, index: int, cells: int) -> np.ndarray:
        """Rasterise masks, once: kept, they take about as much memory as their json.

        Half of the time of reading an image was spent here, and all of it holds
        Python's lock.
        """
        instances = self.records[index].instances
        shape = (len(instances), cells, cells)
        kept = self._grids.get((index, cells))
        if kept is not None:
            return np.frombuffer(zlib.decompress(kept), np.uint8).reshape(shape)
        # A crowd without segmentation fills its box.
        grids = np.full(shape, 255, np.uint8)
        for row, instance in enumerate(instances):
            if self.has_masks and instance.segmentation is not None:
                grids[row] = crop_mask(instance.segmentation, instance.box, cells)
        self._grids[index, cells] = zlib.compress(grids.tobytes(), 1)
        return grids

    def largest_count(self) -> int:
        return max(len(record.instances) for record in self.records)

    def fingerprint(self, index: int) -> str:
        return file_fingerprint(self.records[index].path)


def _decodable(records: list[Record], report: Report) -> list[Record]:
    """Leave out the images whose pixels are damaged."""
    from kvision.data.check import decode_all

    broken = decode_all(records, report)
    return [record for record in records if record.image_id not in broken]


def _labels(
    categories: dict[int, str], class_names: Sequence[str] | None, source: str
) -> dict[int, int]:
    """Map category ids to labels 0..K-1, by name."""
    ids = {name: category_id for category_id, name in categories.items()}
    names = list(ids) if class_names is None else list(class_names)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names:
        raise ValueError(f"class_names must be different names. Received: {names}")
    for name in names:
        if name not in ids:
            near = difflib.get_close_matches(str(name), ids, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{source} has no category {name!r}.{hint} It has {list(ids)}."
            )
    return {ids[name]: label for label, name in enumerate(names)}


def _with_classes(records: list[Record], labels: dict[int, int]) -> list[Record]:
    return [
        Record(
            record.image_id,
            record.path,
            record.size,
            [i for i in record.instances if i.category_id in labels],
            record.info,
        )
        for record in records
    ]


def _refuse_empty(records: list[Record], labels: dict[int, int], source: str) -> None:
    objects = [i for record in records for i in record.instances if not i.is_crowd]
    if objects:
        return
    what = f"{len(records)} images without a single object of {len(labels)} classes"
    raise DataError(Finding("error", "A15", source, what, "There is nothing to learn."))


def _log(
    report: Report, records: list[Record], max_instances: int | None, source: str
) -> None:
    """Write one warning that counts all that is left out or changed."""
    lines = report.lines()
    counts = [len(record.instances) for record in records]
    if max_instances is not None and max(counts) > max_instances:
        over = [count - max_instances for count in counts if count > max_instances]
        lines.append(
            f"{sum(over)} objects of {len(over)} images left out [B8]: up to "
            f"{max(counts)} in an image, max_instances={max_instances}"
        )
    if lines:
        _LOGGER.warning("%s:\n  %s", source, "\n  ".join(lines))


# Finding files


def _is_instances(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        # Broken files are for the check to report, if their name says what they are.
        return _set_name(path) in ("train", "val", "test")
    keys = {"images", "annotations", "categories"}
    return isinstance(content, dict) and keys <= content.keys()


def _set_name(path: Path) -> str:
    stem = path.stem.removeprefix("instances_")
    name = path.parent.name if stem.startswith("_annotations") else stem
    words = {"train": "train", "val": "val", "valid": "val", "validation": "val"}
    words["test"] = "test"
    return words.get(name.rstrip("0123456789_-").lower(), name)


def _image_folder(path: Path, root: Path) -> Path:
    """Choose the folder that holds the first images of a json."""
    stem = path.stem.removeprefix("instances_")
    folders = [root / "images" / stem, root / stem, root / "images"]
    folders += [path.parent / "images", path.parent]
    folders += [path.parent.parent / "images" / stem, path.parent.parent / stem]
    folders += [path.parent.parent / "images"]
    existing = [one for one in folders if one.is_dir()]
    try:
        with open(path, encoding="utf-8") as file:
            names = [
                str(image["file_name"]) for image in json.load(file)["images"][:20]
            ]
    except (OSError, ValueError, KeyError, TypeError):
        names = []

    def found(one: Path) -> int:
        return sum((one / name).exists() for name in names)

    return max(existing, key=found, default=path.parent)
