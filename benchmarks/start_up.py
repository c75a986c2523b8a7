"""The import of a package in a fresh interpreter."""

import subprocess
import sys
from collections.abc import Callable

from benchmarks.turns import take_turns


def prepare() -> Callable[[], object]:
    """Return a function that starts Python and imports the package."""
    command = [sys.executable, "-c", f"import {sys.argv[1]}"]
    return lambda: subprocess.run(command, check=True, capture_output=True)


take_turns(prepare, sys.argv[1].replace("_", "-"))
