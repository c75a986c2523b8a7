"""Image files and their classes: found in folders, or listed in a table."""

import csv
import difflib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from kvision.data.findings import DataError, Finding, Report

__all__ = ["ClassFiles", "find_splits", "read_folder", "read_table", "split_name"]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
IMAGE_SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm", ".jpe", ".jfif"}
# Names of columns and sets, lower-case, the likeliest first.
_FILE_COLUMNS: tuple[str, ...] = ("file", "filename", "file_name", "path", "filepath")
_FILE_COLUMNS += ("file_path", "image", "image_path", "image_name", "img", "img_path")
_LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "y")
_SPLIT_COLUMNS = ("split", "subset", "set", "partition")
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val"}
_SPLITS |= {"validation": "val", "dev": "val", "test": "test", "testing": "test"}
_TABLES = {".csv", ".tsv"}


@dataclass
class ClassFiles:
    """Image files and the names of their classes.

    Attributes:
        class_names: in the order of the labels.
        paths: of the files.
        names: of the files, as in the data set; they decide about splits.
        classes: the class of each file.
    """

    class_names: list[str]
    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)

    def add(self, path: str, name: str, class_name: str) -> None:
        """Append a file."""
        self.paths.append(path)
        self.names.append(name)
        self.classes.append(class_name)

    def keep(self, chosen: Sequence[int]) -> "ClassFiles":
        """Return some of the files, by number; the classes stay."""
        return ClassFiles(
            self.class_names,
            [self.paths[i] for i in chosen],
            [self.names[i] for i in chosen],
            [self.classes[i] for i in chosen],
        )


def find_splits(path: str | os.PathLike[str]) -> dict[str, Path]:
    """Find the sets of a folder: train/, val/, test/, or train.csv and so on.

    Args:
        path: a folder.

    Returns:
        "train", "val", "test" -> the set's folder or table, as far as they exist.
        Empty for a folder of classes.
    """
    root = Path(path)
    if not root.is_dir():
        return {}
    found: dict[str, Path] = {}
    others = 0
    for one in sorted(root.iterdir()):
        is_set = one.is_dir() or one.suffix.lower() in _TABLES
        if one.name.startswith((".", "__")) or not is_set:
            continue
        name = one.stem if one.is_file() else one.name
        if name.lower() in _SPLITS:
            before = found.get(split_name(name))
            # Beside train.csv a folder train/ may hold the images, in no classes.
            if before is None or not any(p.is_dir() for p in before.iterdir()):
                found[split_name(name)] = one
        else:
            others += one.is_dir() and _has_images(one)
    # A class may be called "test": sets stand beside no classes.
    return {} if others and not any(p.is_file() for p in found.values()) else found


def split_name(name: str) -> str:
    """Return "train", "val" or "test" for their synonyms, other names as they are."""
    return _SPLITS.get(name.lower(), name)


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


# Folders


def read_folder(
    folder: Path, class_names: Sequence[str] | None, report: Report
) -> ClassFiles:
    """Read folders of which each is a class, with all that lies below them.

    Args:
        folder: that holds them.
        class_names: the classes to keep, in the order of the labels; by default all,
            sorted.
        report: receives the findings.

    Returns:
        The files, sorted within their class.

    Raises:
        DataError: there are no class folders, or a class that has none is nearly
            called as another folder.
    """
    present = sorted(
        one.name
        for one in folder.iterdir()
        if one.is_dir() and not one.name.startswith((".", "__"))
    )
    if not present:
        message = "no folders in it, expected one for each class"
        _fail("A15", str(folder), message, "Put the images of each class into one.")
    names = _listed(present, class_names)
    others = sorted(set(present) - set(names))
    files = ClassFiles(names)
    for name in names:
        if name in present:
            _read_class(folder, name, files, report)
        else:
            _refuse_typo(folder, name, others)
    _note_ignored(folder, others, report)
    return files


def _read_class(folder: Path, name: str, files: ClassFiles, report: Report) -> None:
    others = []
    for path in _walk(folder / name):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            files.add(str(path), path.relative_to(folder).as_posix(), name)
        else:
            others.append(path.name)
    if others:
        message = f"{len(others)} files are no images by their names: {others[:3]}"
        report.add(Finding("warning", "A9", str(folder / name), message))


def _walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, sorted; links are followed, but not in circles."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__")))
        yield from (Path(root, n) for n in sorted(names) if not n.startswith("."))


def _note_ignored(folder: Path, others: list[str], report: Report) -> None:
    if others:
        message = f"{len(others)} folders are not among class_names: {others[:5]}"
        report.add(Finding("warning", "B2", str(folder), message))
    loose = [
        one.name
        for one in sorted(folder.iterdir())
        if one.is_file() and one.suffix.lower() in IMAGE_SUFFIXES
    ]
    if loose:
        message = f"{len(loose)} images lie in no class folder: {loose[:3]}"
        report.add(Finding("warning", "B2", str(folder), message))


# Tables


def read_table(
    path: Path,
    images: Path,
    split: str | None,
    class_names: Sequence[str] | None,
    columns: tuple[str | None, str | None],
    report: Report,
) -> ClassFiles:
    """Read a CSV or TSV table with a file and a class in each row.

    Args:
        path: of the table; its first line names the columns.
        images: folder in which the files are looked up.
        split: which rows to take, by a column "split"; all if None.
        class_names: in the order of the labels; by default those of all rows, sorted.
        columns: names of the columns of files and of classes, or None to find them.
        report: receives the findings.

    Returns:
        The files in the order of the table.

    Raises:
        DataError: the table is unreadable or lacks a column.
    """
    header, rows = _rows(path)
    file_column = _column(path, header, columns[0], _FILE_COLUMNS, "file_column")
    label_column = _column(path, header, columns[1], _LABEL_COLUMNS, "label_column")
    classes = sorted({row[label_column] for _, row in rows} - {""}, key=_natural)
    names = _listed(classes, class_names)
    files = ClassFiles(names)
    lines: dict[str, int] = {}
    for number, row in _of_split(path, header, rows, split):
        where = f"{path}, line {number}"
        name, label = row[file_column], row[label_column]
        if not name or not label:
            empty = file_column if not name else label_column
            _error(report, "B10", where, f"column {empty!r} is empty")
        elif label not in names:
            _unknown(report, where, label, names)
        elif name in lines:
            _note_twice(report, where, name, lines[name], label, files)
        else:
            lines[name] = number
            files.add(str(images / name), name, label)
    return files


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and rows of a table, with the line on which each row ends."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = []
            for values in reader:
                if not values:
                    continue
                if len(values) != len(header):
                    message = f"{len(values)} values, the header names {len(header)}"
                    _fail("B1", f"{path}, line {reader.line_num}", message, "Mend it.")
                cells = [value.strip() for value in values]
                rows.append((reader.line_num, dict(zip(header, cells, strict=True))))
    except (UnicodeDecodeError, csv.Error) as error:
        _fail("B1", str(path), f"no table in UTF-8 ({error})", "Save it as CSV again.")
    if not rows:
        _fail("A15", str(path), "no rows in it", "Expected a header and rows.")
    return header, rows


def _column(
    path: Path,
    header: list[str],
    given: str | None,
    known: tuple[str, ...],
    argument: str | None,
) -> str:
    if given is not None:
        if given in header:
            return given
        near = difflib.get_close_matches(given, header, 1)
        hint = f"Did you mean {near[0]!r}?" if near else ""
        _fail("B1", str(path), f"no column {given!r}, it has {header}", hint)
    lower = {name.lower().replace(" ", "_"): name for name in reversed(header)}
    for name in known:
        if name in lower:
            return lower[name]
    message = f"none of its columns {header} is called {' or '.join(known[:6])}"
    remedy = f"Name the column by {argument}=." if argument else "Leave split out."
    _fail("B1", str(path), message, remedy)


def _of_split(
    path: Path,
    header: list[str],
    rows: list[tuple[int, dict[str, str]]],
    split: str | None,
) -> list[tuple[int, dict[str, str]]]:
    if split is None:
        return rows
    column = _column(path, header, None, _SPLIT_COLUMNS, None)
    wanted = split_name(split)
    sets = [split_name(row[column]) for _, row in rows]
    if wanted not in sets:
        message = (
            f"no rows of split {split!r}, column {column!r} has {sorted(set(sets))}"
        )
        _fail("B1", str(path), message, "Choose one of them.")
    return [row for row, name in zip(rows, sets, strict=True) if name == wanted]


def _natural(name: str) -> tuple[int, int, str]:
    """Numbers by their value, before other names."""
    is_number = name.isascii() and name.isdigit()
    return (0, int(name), name) if is_number else (1, 0, name)


def _listed(present: list[str], class_names: Sequence[str] | None) -> list[str]:
    if class_names is None:
        return present
    _refuse_twice(class_names)
    return [str(name) for name in class_names]


def _unknown(report: Report, where: str, label: str, names: list[str]) -> None:
    near = difflib.get_close_matches(label, names, 1)
    hint = f"Did you mean {near[0]!r}?" if near else "Mend it, or add the class."
    message = f"class {label!r} is not among class_names {names[:8]}"
    _error(report, "B2", where, message, hint)


def _note_twice(
    report: Report, where: str, name: str, line: int, label: str, files: ClassFiles
) -> None:
    first = files.classes[files.names.index(name)]
    if first == label:
        message = f"{name} stands in line {line} too; it counts once"
        report.add(Finding("warning", "A13", where, message))
    else:
        message = f"{name} is {label!r} here and {first!r} in line {line}"
        _error(report, "B2", where, message, "An image has one class.")


# Classes


def _refuse_typo(folder: Path, name: str, others: list[str]) -> None:
    if near := difflib.get_close_matches(name, others, 1):
        _fail("A15", str(folder), f"no folder {name!r}", f"Did you mean {near[0]!r}?")


def _refuse_twice(class_names: Sequence[str]) -> None:
    counts = Counter(class_names)
    if isinstance(class_names, str) or not counts or max(counts.values()) > 1:
        raise ValueError(
            f"class_names must be different names. Received: {class_names!r}"
        )


def _error(
    report: Report, code: str, where: str, message: str, remedy: str = ""
) -> None:
    report.add(Finding("error", code, where, message, remedy))


def _fail(code: str, where: str, message: str, remedy: str) -> NoReturn:
    raise DataError(Finding("error", code, where, message, remedy)) from None
