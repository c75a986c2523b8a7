"""What became of a checkpoint's tensors and of a model's variables."""

from dataclasses import dataclass
from pathlib import Path

from kvision.weights.checkpoint import printable, shown

__all__ = ["Report"]

_SHOWN = 2


@dataclass(frozen=True, repr=False)
class Report:
    """What `kvision.weights.load` did. Printed, it is a table.

    Attributes:
        path: the checkpoint.
        source: whose layout it has, such as "timm".
        matched: names of the tensors that were taken as they are.
        resized: names of those that were brought to the model's size.
        fresh: paths of the variables that keep their first values.
        unused: names of the tensors that the model has no place for, or a head of other
            classes.
        remarks: whose some of them are, a sentence each.
    """

    path: Path
    source: str
    matched: tuple[str, ...]
    resized: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        # As text, or rich takes brackets in names for colours.
        title = Text(f"{printable(self.path.name)} ({self.source})")
        table = Table("", "count", "such as", title=title, title_justify="left")
        for kind in ("matched", "resized", "fresh", "unused"):
            names = getattr(self, kind)
            first = ", ".join(shown(printable(name)) for name in names[:_SHOWN])
            more = ", ..." if names[_SHOWN:] else ""
            table.add_row(kind, str(len(names)), Text(first + more))
        console = Console(width=100)
        with console.capture() as text:
            remarks = [Text(printable(remark)) for remark in self.remarks]
            console.print(table, *remarks, sep="\n")
        return text.get().rstrip()
