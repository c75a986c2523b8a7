"""What is wrong with a data set: single findings, a report of them, one exception.

Codes of findings about image files:

    A1 missing or unreadable · A2 empty · A3 not an image · A4 cut off or damaged ·
    A5 JPEG without its end mark · A6 named as another format · A7 EXIF orientation ·
    A8 pixels that are converted, or refused · A9 unsupported format, or an animation ·
    A10 too many pixels · A11 tiny · A12 another size than annotated · A13 the same
    picture twice · A14 a name that leads out of the folder · A15 nothing to learn from

and about annotations:

    B1 outline of the json · B2 categories · B4 box without area · B5 box of no finite
    numbers · B6 box outside · B7 box of another convention · B8 more objects than
    asked for · B9 crowd regions · B10 ids and missing fields · B11 malformed polygon,
    or none · B12 polygon not finite or far outside · B13 malformed RLE · B14 empty
    mask, or not that of its box · B15 keypoints
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["DataError", "Finding", "Report"]

Severity = Literal["error", "warning", "info"]

_SHOWN = 3  # examples of one fault in a message or a table
_ORDER = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One fault of a data set.

    Args:
        severity: "error" stops training, "warning" is mended or dropped and counted,
            "info" is worth knowing.
        code: "A1".."A15" for image files, "B1".."B15" for annotations.
        where: the file, image or annotation, with its id.
        message: what was expected and what came.
        remedy: how to mend it.
    """

    severity: Severity
    code: str
    where: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{self.where}: {self.message}.{remedy}"


class DataError(ValueError):
    """A data set or an image that cannot be used; the message names the culprits.

    Attributes:
        findings: the errors behind it.
    """

    def __init__(self, *findings: Finding) -> None:
        self.findings = findings
        super().__init__(_summary(findings))


@dataclass
class Report:
    """Everything found in one or more data sets.

    Attributes:
        findings: in the order in which they were found.
        num_images: images looked at.
        num_annotations: annotations looked at.
    """

    findings: list[Finding] = field(default_factory=list)
    num_images: int = 0
    num_annotations: int = 0

    def add(self, *findings: Finding) -> None:
        """Append findings."""
        self.findings.extend(findings)

    def of(self, severity: Severity) -> list[Finding]:
        """Return the findings of one severity."""
        return [found for found in self.findings if found.severity == severity]

    @property
    def num_errors(self) -> int:
        """How many findings are errors."""
        return len(self.of("error"))

    @property
    def num_warnings(self) -> int:
        """How many findings are warnings."""
        return len(self.of("warning"))

    def raise_errors(self) -> None:
        """Raise one `DataError` that names the errors, if there are any."""
        if errors := self.of("error"):
            raise DataError(*errors)

    def lines(self) -> list[str]:
        """Count what was left out and warned of: a line for each kind of fault."""
        lines = []
        groups: dict[tuple[str, str], list[Finding]] = {}
        for found in self.of("error") + self.of("warning"):
            groups.setdefault((found.severity, found.code), []).append(found)
        for (severity, code), group in groups.items():
            what = "left out for errors" if severity == "error" else "warnings"
            lines.append(f"{len(group)} {what} [{code}], such as {group[0]}")
        return lines

    def table(self) -> "Table":
        """Lay the findings out for a terminal, the same faults on one line."""
        from rich.table import Table
        from rich.text import Text

        table = Table("severity", "code", "count", "where", "what", "remedy")
        colors = {"error": "red", "warning": "yellow", "info": "cyan"}
        for group in self._groups():
            first = group[0]
            table.add_row(
                Text(first.severity, style=colors[first.severity]),
                first.code,
                str(len(group)),
                # Names from files are text, never markup.
                Text(_examples([found.where for found in group], "\n")),
                Text(first.message),
                Text(first.remedy),
            )
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return counts and findings as plain types, for JSON."""
        return {
            "num_images": self.num_images,
            "num_annotations": self.num_annotations,
            "num_errors": self.num_errors,
            "num_warnings": self.num_warnings,
            "findings": [asdict(found) for found in self.findings],
        }

    def _groups(self) -> list[list[Finding]]:
        """Findings that differ only in where and in figures, the gravest first."""
        groups: dict[tuple[int, str, str], list[Finding]] = {}
        for found in self.findings:
            key = (_ORDER.index(found.severity), found.code, found.remedy)
            groups.setdefault(key, []).append(found)
        return [groups[key] for key in sorted(groups, key=lambda key: key[:2])]


def _examples(items: list[str], separator: str) -> str:
    items = list(dict.fromkeys(items))
    more = len(items) - _SHOWN
    shown = items[:_SHOWN] + ([f"and {more} more"] if more > 0 else [])
    return separator.join(shown)


def _summary(findings: tuple[Finding, ...]) -> str:
    if len(findings) == 1:
        return str(findings[0])
    counts = Counter(found.code for found in findings)
    of_each = [[f for f in findings if f.code == code][:_SHOWN] for code in counts]
    lines = [f"  [{f.code}] {f}" for group in of_each for f in group]
    hidden = len(findings) - len(lines)
    if hidden:
        lines.append(f"  and {hidden} more: kvision check DATA lists all of them")
    return f"{len(findings)} errors in the data\n" + "\n".join(lines)
