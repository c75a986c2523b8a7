"""kvision_cli: help, suggestions, ranges, JSON, errors and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

import kvision_cli

COMMANDS = [
    ["demo"],
    ["check"],
    ["train"],
    ["train", "detect"],
    ["eval"],
    ["predict"],
    ["export"],
    ["convert"],
    ["doctor"],
]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(kvision_cli.cli, arguments)


@pytest.fixture
def replace_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Let every command call a function of the test instead of its own."""

    def replace(run: Callable[..., dict[str, Any]]) -> None:
        monkeypatch.setattr(kvision_cli, "load", lambda _: SimpleNamespace(run=run))

    return replace


def fail_with(error: BaseException) -> Callable[..., dict[str, Any]]:
    def run(**_: Any) -> dict[str, Any]:
        raise error

    return run


def test_help_takes_half_a_second() -> None:
    command = [sys.executable, "-m", "kvision_cli", "--help"]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    # Measured: 0.06 s; the issue asks for 0.5, half as much again on a busy machine.
    assert min(seconds) < 0.75


def test_no_help_imports_numpy_or_tensorflow() -> None:
    code = (
        "import sys, click.testing, kvision_cli\n"
        f"for command in {COMMANDS}:\n"
        "    call = click.testing.CliRunner().invoke\n"
        "    assert call(kvision_cli.cli, [*command, '--help']).exit_code == 0\n"
        "assert not {'numpy', 'keras', 'tensorflow', 'rich'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    if command != ["train"]:
        assert "--json" in result.stdout


def test_commands_are_listed_in_the_order_of_work() -> None:
    lines = invoke("--help").stdout.partition("Commands:")[2].splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    work = ["demo", "check", "train", "eval", "predict", "export"]
    assert names == [*work, "convert", "models", "explain", "doctor"]


def test_version_is_the_package_version() -> None:
    import kvision

    assert kvision.__version__ in invoke("--version").stdout


WRONG = [
    (["chek", "."], "Did you mean 'check'?"),
    (["train", "detct", "."], "Did you mean 'detect'?"),
    (["check", ".", "--imags", "."], "Did you mean '--images'?"),
    (["check", "missing.json"], "'missing.json' does not exist"),
    (["train", "detect", ".", "--epochs", "0"], "0 is not in the range x>=1"),
    (["train", "detect", ".", "--learning-rate", "0"], "not in the range x>0"),
    (["train", "detect", ".", "--batch-size", "two"], "not a valid integer"),
    (["train", "detect", ".", "--image-size", "2x3x4"], "256x320 (height x width)"),
    (["train", "detect", ".", "--image-size", "0"], "256x320 (height x width)"),
    (["train", "detect"], "Missing argument 'DATA' (or --resume RUN)"),
    (["train", "detect", ".", "epochs"], "Expected KEY=VALUE after DATA"),
    (["train", "detect", ".", "--resume", "."], "no DATA"),
    (["train", "detect", "none/"], "'none/' does not exist"),
    (["predict", ".", "a.jpg", "--score-threshold", "2"], "not in the range 0<=x<=1"),
    (["predict", "."], "Missing argument 'IMAGES...'"),
    (["export", ".", "--format", "tflit"], "'tflit' is not one of"),
    (["export", ".", "--quantize", "int8"], "needs --data DATA"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda x: str(x)[:40])
def test_wrong_arguments_exit_2_before_tensorflow(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kvision_cli, "load", fail_with(AssertionError("loaded")))
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("text", "size"), [("256", (256, 256)), ("256x320", (256, 320))]
)
def test_image_size_is_height_by_width(text: str, size: tuple[int, int]) -> None:
    assert kvision_cli.ImageSize().convert(text, None, None) == size


def test_options_reach_the_command(replace_run: Callable[[Any], None]) -> None:
    seen: dict[str, Any] = {}

    def run(**options: Any) -> dict[str, Any]:
        seen.update(options)
        return {}

    replace_run(run)
    assert invoke("check", ".", "--images", ".").exit_code == 0
    assert seen == {"data": Path("."), "images": Path(".")}


def test_json_is_one_strict_object_on_the_last_line(
    replace_run: Callable[[Any], None],
) -> None:
    def run(**_: Any) -> dict[str, Any]:
        click.echo("for people")
        return {
            "ap": np.float32(0.5),
            "ar": float("nan"),
            "counts": np.arange(2),
            "files": [Path("a.png")],
        }

    replace_run(run)
    last = invoke("doctor", "--json").stdout.splitlines()[-1]
    expected = {"ok": True, "ap": 0.5, "ar": None, "counts": [0, 1]}
    assert json.loads(last) == expected | {"files": ["a.png"]}
    assert invoke("doctor").stdout == "for people\n"


def test_result_that_is_not_ok_exits_1(replace_run: Callable[[Any], None]) -> None:
    replace_run(lambda **_: {"ok": False, "errors": 3})
    result = invoke("doctor", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"ok": False, "errors": 3}


@pytest.mark.parametrize("kind", [ValueError, OSError, ImportError])
def test_expected_error_is_one_line(
    kind: type[Exception], replace_run: Callable[[Any], None]
) -> None:
    replace_run(fail_with(kind("train.json: no categories")))
    result = invoke("doctor", "--json")
    assert result.exit_code == 1
    assert result.stderr == "error: train.json: no categories\n"
    expected = {"ok": False, "error": "train.json: no categories"}
    assert json.loads(result.stdout) == expected


def test_traceback_on_request_and_for_defects(
    replace_run: Callable[[Any], None],
) -> None:
    replace_run(fail_with(ValueError("bad file")))
    assert "Traceback" in invoke("doctor", "--traceback").stderr
    replace_run(fail_with(KeyError("a defect of ours")))
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_out_of_memory_comes_with_advice(replace_run: Callable[[Any], None]) -> None:
    class ResourceExhaustedError(Exception):
        """Has the name of TensorFlow's."""

    replace_run(fail_with(ResourceExhaustedError("OOM when allocating\nmore")))
    expected = "error: out of memory, try a smaller batch or image size (OOM when"
    assert invoke("doctor").stderr.startswith(expected)


def test_message_raised_within_tf_data_is_taken_out(
    replace_run: Callable[[Any], None],
) -> None:
    import tensorflow as tf

    def load(_: tf.Tensor) -> float:
        raise ValueError("a.png: the PNG is cut off. Fetch it again.")

    def run(**_: Any) -> dict[str, Any]:
        dataset = tf.data.Dataset.range(1)
        dataset = dataset.map(lambda i: tf.numpy_function(load, [i], tf.float32))
        return {"batches": list(dataset)}

    replace_run(run)
    result = invoke("doctor")
    assert result.exit_code == 1
    assert result.stderr == "error: a.png: the PNG is cut off. Fetch it again.\n"


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Call main() as the script does; gives the exit code."""
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["kvision", *arguments])
        with pytest.raises(SystemExit) as raised:
            kvision_cli.main()
        return int(raised.value.code or 0)

    yield call
    signal.signal(signal.SIGTERM, before)


def test_main_exit_codes(
    command_line: Callable[..., int], replace_run: Callable[[Any], None]
) -> None:
    replace_run(lambda **_: {})
    assert command_line("doctor") == 0
    replace_run(lambda **_: {"ok": False})
    assert command_line("doctor") == 1
    assert command_line("docter") == 2
    replace_run(fail_with(KeyboardInterrupt()))
    assert command_line("doctor") == 130


def test_sigterm_unwinds_and_exits_143(
    command_line: Callable[..., int], replace_run: Callable[[Any], None]
) -> None:
    closed = []

    def run(**_: Any) -> dict[str, Any]:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            closed.append(True)
        return {}

    replace_run(run)
    assert command_line("doctor") == 143
    assert closed


def test_stderr_is_held_back_unless_the_block_fails(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with kvision_cli.held_stderr():
        os.write(2, b"noise")
    assert capfd.readouterr().err == ""

    def fail() -> None:
        with kvision_cli.held_stderr():
            os.write(2, b"the reason")
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert capfd.readouterr().err == "the reason"
