"""Reports: counts, one message for many faults, a table, plain types."""

import io
import json

import pytest
from rich.console import Console

from kvision.data.findings import DataError, Finding, Report


def report() -> Report:
    missing = [
        Finding("error", "A1", f"{n}.jpg", "no such file", "Look.") for n in range(5)
    ]
    report = Report(num_images=9)
    report.add(Finding("info", "B9", "[bold]x.json", "2 crowd regions"), *missing)
    report.add(Finding("warning", "B4", "annotation 3", "bbox [0, 0] has no area"))
    return report


def test_counts_and_plain_types() -> None:
    result = report().to_dict()
    assert (result["num_errors"], result["num_warnings"]) == (5, 1)
    assert json.loads(json.dumps(result)) == result
    assert result["findings"][1] == {
        "severity": "error",
        "code": "A1",
        "where": "0.jpg",
        "message": "no such file",
        "remedy": "Look.",
    }


def test_table_gathers_the_same_faults_gravest_first() -> None:
    output = io.StringIO()
    Console(file=output, width=120).print(report().table())
    text = output.getvalue()
    assert text.index("error") < text.index("warning") < text.index("info")
    assert "and 2 more" in text
    assert "3.jpg" not in text
    assert "[bold]x.json" in text  # names are no markup


def test_errors_are_raised_together() -> None:
    with pytest.raises(DataError, match=r"(?s)5 errors.*\[A1\] 0\.jpg.*and 2 more"):
        report().raise_errors()
    Report().raise_errors()


def test_one_error_is_one_line() -> None:
    error = DataError(Finding("error", "A2", "x.png", "empty", "Fetch it again."))
    assert str(error) == "x.png: empty. Fetch it again."
    assert isinstance(error, ValueError)
