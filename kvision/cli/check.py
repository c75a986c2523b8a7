"""`kvision check`: the faults of a data set, before training."""

from pathlib import Path
from typing import Any

from rich.console import Console

from kvision.cli.arguments import find_data_sets
from kvision.data.check import check

__all__ = ["run"]


def run(data: Path, images: Path | None) -> dict[str, Any]:
    """Check every data set of a folder and print what was found.

    Args:
        data: folder with COCO json files and images, or one json file.
        images: image folder of a json file.

    Returns:
        Counts and findings of each data set; `ok` is False where there are errors.
    """
    console = Console()
    reports = {}
    for name, annotations, folder in find_data_sets(data, images):
        report = reports[name] = check(annotations, folder)
        console.rule(name, align="left")
        if report.findings:
            console.print(report.table())
        console.print(
            f"{report.num_images} images, {report.num_annotations} annotations: "
            f"{report.num_errors} errors, {report.num_warnings} warnings",
            highlight=False,
        )
    num_errors = sum(report.num_errors for report in reports.values())
    return {
        "ok": num_errors == 0,
        "num_errors": num_errors,
        "num_warnings": sum(report.num_warnings for report in reports.values()),
        "data_sets": {name: report.to_dict() for name, report in reports.items()},
    }
