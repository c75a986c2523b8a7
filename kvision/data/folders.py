"""Folders of classes, or a table of files, as datasets for classifiers."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from kvision.data.annotations import Record
from kvision.data.class_files import (
    ClassFiles,
    find_splits,
    read_folder,
    read_table,
    split_name,
)
from kvision.data.classification_transforms import Augment
from kvision.data.findings import DataError, Finding, Report
from kvision.data.image_cache import file_fingerprint
from kvision.data.images import load_image, scan_image
from kvision.data.labelled import LabelledOptions, make_labelled_dataset
from kvision.data.splits import Subset, check_split, split_labelled
from kvision.ops.preparation import Interpolation, Preparation

__all__ = ["folders"]

_LOGGER = logging.getLogger("kvision")
_THREADS = 8
_HEAD = 16384  # bytes that tell most files of one length apart


def folders(
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int],
    batch_size: int,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    file_column: str | None = None,
    label_column: str | None = None,
    resize: Preparation = "crop",
    crop_fraction: float = 0.875,
    interpolation: Interpolation = "bicubic",
    validation_split: float | None = None,
    subset: Subset | None = None,
    split_seed: int = 0,
    augment: Augment = False,
    label_smoothing: float = 0.0,
    repeats: int = 1,
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
    """Make a dataset of images in folders, one for each class, or listed in a table.

    The header of every image is checked first. Errors are raised together; whatever is
    left out is counted in one warning of the logger "kvision". No file is ever changed.

    Args:
        path: a folder with a folder for each class (`path/cat/1.jpg`; folders in them
            count too); or with sets of such folders (`path/train/cat/1.jpg`), then
            `split` chooses; or a CSV or TSV table with a column of files and one of
            classes.
        image_size: (height, width) of the model's input in pixels.
        batch_size: images in a batch.
        split: "train", "val" or "test": a folder (valid/ and validation/ are val/), a
            table (train.csv) or, in a table, the rows whose column "split" says so.
        class_names: names of the classes in the order of the labels. By default all
            there are, sorted. Other folders are left out; other classes in a table
            are errors. Give the training set's here for other sets: in one that is not
            shuffled a class without images is then a warning, not an error.
        images: folder in which the files of a table are looked up; by default where
            the table lies.
        file_column: name of the column of files; found by itself if it is called file,
            filename, path, image or the like.
        label_column: name of the column of classes: label, class, category, ...
        resize: as of the model's preprocessing: "crop" brings the short side to
            `image_size / crop_fraction` and cuts the middle out, "stretch" squashes,
            "pad" keeps the aspect ratio and pads at the bottom and right with 0.
        crop_fraction: how much of the short side "crop" keeps.
        interpolation: "bicubic" or "bilinear", antialiased; Pillow's.
        validation_split: part of each class that is set aside for validation.
        subset: which part to return when `validation_split` is given: "training" or
            "validation".
        split_seed: which images are set aside follows from it and from their names.
        augment: False, "light", "deit" or "three" (see
            `kvision.data.named_transforms`), or a list of transforms.
        label_smoothing: part of the probability that all classes share alike.
        repeats: how often an image stands in a row, each time augmented anew. An epoch
            keeps its length and so sees one in `repeats` of the images. (Hoffer et al.
            2019, Augment your batch; DeiT takes 3.)
        shuffle: whether every epoch has another order. By default it has when
            `augment` is given or `first_epoch` is.
        seed: of order and augmentation.
        first_epoch: makes the dataset endless and begins with this epoch, for
            `fit(..., steps_per_epoch=dataset.steps_per_epoch)` that is resumed. Epoch
            k is the same wherever it began. Without it the dataset is finite, and its
            k-th iteration is epoch k.
        first_step: step of the first epoch with which an endless dataset begins.
        drop_remainder: whether images that do not fill a batch wait for another
            epoch; by default so when shuffling.
        num_shards: number of workers that share the data.
        shard_index: which of them this is.
        cache: True keeps images in memory, a path keeps them in that folder: of the
            input size, or whole where `augment` begins with `RandomResizedCrop`.
        on_error: "raise" stops at errors; "skip" decodes every image once at the
            start and leaves what is broken out, with a warning that counts and names.

    Returns:
        Dataset of (images, labels). `images` (B, H, W, 3) uint8, float32 if MixUp or
        CutMix is among the transforms. `labels` (B,) int32; (B, K) float32 with
        MixUp, CutMix or label smoothing.

        It has the attributes class_names, image_names, class_counts, num_images,
        steps_per_epoch, image_size, resize, crop_fraction and interpolation.

    Raises:
        DataError: a `ValueError` that names the files at fault.
        ValueError: an argument does not fit.
    """
    options = LabelledOptions(
        image_size=image_size,
        batch_size=batch_size,
        augment=augment,
        shuffle=shuffle,
        seed=seed,
        first_epoch=first_epoch,
        first_step=first_step,
        cache=cache,
        num_shards=num_shards,
        shard_index=shard_index,
        drop_remainder=drop_remainder,
        resize=resize,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
        label_smoothing=label_smoothing,
        repeats=repeats,
    )
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error must be "raise" or "skip". Received: {on_error!r}')
    check_split(validation_split, subset)
    report = Report()
    source, row_split = _find(Path(path), split)
    if source.is_dir():
        files = read_folder(source, class_names, report)
    else:
        root = Path(images) if images is not None else source.parent
        columns = (file_column, label_column)
        files = read_table(source, root, row_split, class_names, columns, report)
    files = _sound(files, report, decode=on_error == "skip")
    is_training = class_names is None or options.shuffles
    _note_absent(files, str(source), is_training, report)
    if validation_split is not None:
        files = _part(files, validation_split, subset, split_seed, report)
    if on_error == "raise":
        report.raise_errors()
    _refuse_useless(files, str(source))
    if lines := report.lines():
        _LOGGER.warning("%s:\n  %s", source, "\n  ".join(lines))
    return make_labelled_dataset(_FileSource(files), options)


class _FileSource:
    """Images of files."""

    channels = 3

    def __init__(self, files: ClassFiles) -> None:
        self.class_names = files.class_names
        self.names = files.names
        self.paths = files.paths
        self.labels = _labels(files)

    def load_image(self, index: int) -> np.ndarray:
        return load_image(self.paths[index])

    def fingerprint(self, index: int) -> str:
        return file_fingerprint(self.paths[index])


def _labels(files: ClassFiles) -> np.ndarray:
    numbers = {name: number for number, name in enumerate(files.class_names)}
    return np.array([numbers[name] for name in files.classes], np.int32)


def _find(path: Path, split: str | None) -> tuple[Path, str | None]:
    """Find the folder or the table that is meant, and which rows of the table."""
    if path.is_file():
        return path, split
    if not path.is_dir():
        raise ValueError(f"No such file or folder: {path}")
    sets = find_splits(path)
    if split is not None:
        wanted = split_name(split)
        if wanted in sets:
            return sets[wanted], None
        if (path / split).is_dir():
            return path / split, None
        found = f"It has {', '.join(sets)}." if sets else "It has no such sets."
        raise ValueError(f"{path} has no set {split!r}. {found}")
    if sets:
        raise ValueError(
            f"{path} holds the sets {', '.join(sets)}, not classes. Choose one with "
            f"split={next(iter(sets))!r}."
        )
    return path, None


def _sound(files: ClassFiles, report: Report, decode: bool) -> ClassFiles:
    """Leave out the files whose header, or whose pixels, are damaged."""
    with ThreadPoolExecutor(_THREADS) as threads:
        findings = list(threads.map(_scan, files.paths))
    kept = []
    for number, found in enumerate(findings):
        report.add(*found)
        if not found:
            kept.append(number)
    files = files.keep(kept)
    if not decode:
        return files
    from kvision.data.check import decode_all

    records = [Record(i, path, (0, 0)) for i, path in enumerate(files.paths)]
    broken = decode_all(records, report)
    return files.keep([i for i in range(len(records)) if i not in broken])


def _scan(path: str) -> tuple[Finding, ...]:
    try:
        scan_image(path)
    except DataError as error:
        return error.findings
    return ()


def _note_absent(
    files: ClassFiles, source: str, is_training: bool, report: Report
) -> None:
    present = set(files.classes)
    if absent := [name for name in files.class_names if name not in present]:
        message = f"no images of these classes: {', '.join(map(repr, absent))}"
        remedy = "Add some, or name the classes to keep by class_names."
        if is_training:
            report.add(Finding("error", "A15", source, message, remedy))
        else:
            report.add(Finding("warning", "A15", source, message))


def _refuse_useless(files: ClassFiles, source: str) -> None:
    if len(files.class_names) < 2:
        message = f"only one class, {files.class_names}: there is nothing to tell apart"
        remedy = "A classifier needs at least two classes, each in a folder of its own."
        raise DataError(Finding("error", "A15", source, message, remedy))
    if not files.paths:
        raise DataError(Finding("error", "A15", source, "no images are left"))


# Training and validation


def _part(
    files: ClassFiles,
    validation_split: float,
    subset: str | None,
    split_seed: int,
    report: Report,
) -> ClassFiles:
    labels = _labels(files)
    is_val = split_labelled(files.names, labels, validation_split, split_seed)
    for validation, training in _shared(files.paths, is_val):
        message = f"for validation, but the same picture as {files.paths[training]}"
        remedy = "Keep one of them: scores on training images say little."
        where = files.paths[validation]
        report.add(Finding("error", "A13", where, message, remedy))
        is_val[validation] = False
    chosen = is_val if subset == "validation" else ~is_val
    return files.keep(np.flatnonzero(chosen).tolist())


def _shared(paths: list[str], is_val: np.ndarray) -> list[tuple[int, int]]:
    """Find pairs of equal files, one for validation and one for training."""
    groups = [list(range(len(paths)))]
    # Only files of one length, then of one beginning, have to be read as a whole.
    for key in (os.path.getsize, _head, _digest):
        groups = [
            part
            for group in groups
            for part in _grouped(group, paths, key)
            if 0 < sum(is_val[part]) < len(part)
        ]
    return sorted(
        (number, next(other for other in group if not is_val[other]))
        for group in groups
        for number in group
        if is_val[number]
    )


def _grouped(
    numbers: list[int], paths: list[str], key: Callable[[str], object]
) -> list[list[int]]:
    groups: dict[object, list[int]] = {}
    for number in numbers:
        groups.setdefault(key(paths[number]), []).append(number)
    return list(groups.values())


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD)


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
