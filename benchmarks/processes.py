"""Measurements in processes of their own, each of which prints a JSON object."""

import json
import subprocess
import sys

__all__ = ["run", "run_again"]


def run(command: list[str]) -> dict:
    """Run a process, its messages shown, and read the JSON object on its last line.

    Args:
        command: program and arguments.

    Returns:
        The object.
    """
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.strip().splitlines()[-1])


def run_again(module: str, option: str) -> None:
    """Run a module with the arguments of this process and one more, its output dropped.

    What takes more memory than what is measured is done there.

    Args:
        module: such as "benchmarks.kvision_vit".
        option: such as "--export=FILE".
    """
    command = [sys.executable, "-m", module, *sys.argv[1:], option]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
