"""Progress: a bar on a terminal, lines elsewhere."""

import io

import pytest
from rich.console import Console

from kvision.train.position import Position
from kvision.train.progress import ProgressReport, _span


def report(terminal: bool, seconds: float = 30.0) -> tuple[ProgressReport, io.StringIO]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120)
    position = Position(4)
    return ProgressReport(console, position, 2, seconds), output


def run_epoch(progress: ProgressReport) -> None:
    progress.on_train_begin()
    progress.on_epoch_begin(0)
    for step in range(4):
        progress.position.step = step + 1
        progress.on_train_batch_end(step, {"loss": 4.0 - step})
    progress.on_epoch_end(
        0, {"loss": 2.5, "val_loss": float("nan"), "val_box_ap": 0.25}
    )


def test_lines_where_there_is_no_terminal() -> None:
    progress, output = report(terminal=False)
    run_epoch(progress)
    lines = output.getvalue().splitlines()
    assert lines[1:] == [
        "epoch 1/2  step 1/4  loss 4.000",
        "epoch 1/2  loss 2.500  box_ap 0.250  0 s",
    ]


def test_a_line_every_so_many_seconds() -> None:
    progress, output = report(terminal=False, seconds=0.0)
    run_epoch(progress)
    assert output.getvalue().count("  step ") == 4


def test_a_bar_on_a_terminal() -> None:
    progress, output = report(terminal=True)
    run_epoch(progress)
    text = output.getvalue()
    assert "epoch 1/2  loss 1.000" in text
    assert "4/4" in text
    assert "box_ap 0.250" in text.splitlines()[-1]
    assert progress._bar is None


def test_close_without_a_bar() -> None:
    report(terminal=True)[0].close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (185, "3:05 min"),
        (3723, "1:02:03 h"),
    ],
)
def test_times_as_people_write_them(seconds: float, text: str) -> None:
    assert _span(seconds) == text
