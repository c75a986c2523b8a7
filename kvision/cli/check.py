"""`kvision check`: the faults of a data set, before training."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from kvision.cli.arguments import find_data_sets
from kvision.data.check import Report, check

__all__ = ["run"]


def run(data: Path, images: Path | None) -> dict[str, Any]:
    """Check every data set of a folder and print what was found.

    Args:
        data: folder with COCO json files and images, or one json file.
        images: image folder of a json file.

    Returns:
        Counts and findings; `ok` is False where there are errors.
    """
    sets = find_data_sets(data, images)
    for name, annotations, folder in sets:
        print(f"{name}: {annotations}, images in {folder}")
    report = _check([(annotations, folder) for _, annotations, folder in sets])
    if report.findings:
        table = report.table()
        for column in table.columns:
            column.overflow = "fold"  # a path cut short names no file
        Console().print(table)
    print(
        f"{report.num_images} images, {report.num_annotations} annotations: "
        f"{report.num_errors} errors, {report.num_warnings} warnings"
    )
    names = [name for name, _, _ in sets]
    return {"ok": not report.num_errors, "data_sets": names, **report.to_dict()}


def _check(sets: list[tuple[Path, Path]]) -> Report:
    """Check with a bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    with Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("decoding images")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        (annotations, folder), *others = sets
        return check(annotations, folder, others=tuple(others), progress=show)
