"""Measurements in processes of their own, each of which prints a JSON object."""

import json
import subprocess

__all__ = ["run"]


def run(command: list[str]) -> dict:
    """Run a process, its messages shown, and read the JSON object on its last line.

    Args:
        command: program and arguments.

    Returns:
        The object.
    """
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.strip().splitlines()[-1])
