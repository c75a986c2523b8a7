"""The suite runs, at tiny sizes and without peers; nothing is timed."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.contest import Result
from benchmarks.report import markdown, write_section
from benchmarks.suite import SUITE, Places


@pytest.mark.parametrize("name", ["vit_inference", "evaluation"])
def test_contest_runs(name: str, tmp_path: Path) -> None:
    results, output = tmp_path / "RESULTS.md", tmp_path / "out.json"
    results.write_text("# Results\n")
    options = ["--small", "--turns=1", "--seconds=0.1"]
    main([name, *options, f"--output={output}", f"--results={results}"])
    content = json.loads(output.read_text())
    assert content["name"] == name
    for result in content["results"]:
        assert result["rates"][0] > 0
        assert result["peak_megabytes"] > 0
        assert result["versions"]
    assert "| kvision" in results.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["vit"], "invalid choice: 'vit'"),
        (["vit_image", "--peer=torch"], "KIND=PYTHON"),
        (["vit_image", "--peer=jax=python"], "torch, keras_hub"),
        (["vit_image", "--peer=torch=/no/python"], "/no/python"),
    ],
)
def test_refuses(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(options)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--data=nowhere"]])
def test_refuses_without_photos(options: list[str]) -> None:
    with pytest.raises(SystemExit, match="--data"):
        main(["coco_input", *options])


def test_every_contest_names_modules_that_exist(tmp_path: Path) -> None:
    annotations = tmp_path / "annotations" / "instances_train2017.json"
    annotations.parent.mkdir()
    annotations.touch()
    kinds = {"kvision": "python", "torch": "python", "keras_hub": "python"}
    root = Path(__file__).parents[2]
    for contest in SUITE.values():
        contestants = contest(Places(kinds, tmp_path))
        assert len({one.name for one in contestants}) == len(contestants)
        for contestant in contestants:
            module = contestant.command[2]
            assert (root / (module.replace(".", "/") + ".py")).exists()


def result_of(name: str, rates: list[float]) -> Result:
    return Result(name, 2.0, "float32", rates=rates, versions={"numpy": "2"})


def test_ratios_and_shares() -> None:
    ours, theirs = (
        result_of("kvision", [2.0, 4.0, 9.0]),
        result_of("x", [1.0, 4.0, 3.0]),
    )
    assert ours.times_of(theirs) == 2.0
    assert ours.share_of([Result("product", 4.0, "float32", rates=[4.0])]) == 0.5
    assert ours.share_of([Result("product", 4.0, "bfloat16", rates=[4.0])]) == 0.0


def test_those_of_a_group_are_compared() -> None:
    results = [
        Result(f"{name}, {group}", 2.0, "float32", group, [rate])
        for group, name, rate in (
            ("1 px", "kvision", 6.0),
            ("1 px", "peer", 3.0),
            ("2 px", "kvision", 6.0),
            ("2 px", "peer", 2.0),
        )
    ]
    text = markdown("A sweep", "python x", results, [])
    assert "| kvision / it |" in text
    assert "| peer, 1 px | 3 | 3-3 | 2.00 |" in text
    assert "| peer, 2 px | 2 | 2-2 | 3.00 |" in text


def test_section_replaces_itself(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n\nBefore.\n")
    ours, theirs = result_of("kvision", [2.0]), result_of("peer", [1.0])
    for rate in (1.0, 4.0):
        theirs.rates = [rate]
        text = markdown("A thing.\n\nMore of it.", "python x", [ours, theirs], [])
        write_section(path, "thing", text)
        path.write_text(path.read_text() + ("\nAfter.\n" if rate == 1.0 else ""))
    content = path.read_text()
    assert content.count("## A thing\n") == 1
    assert "More of it." in content
    assert "| peer | 4 | 4-4 | 0.50 |" in content
    assert content.index("Before.") < content.index("## A thing")
    assert content.index("After.") > content.index("| peer |")
