"""The notebooks run from top to bottom, with few steps (KVISION_SMOKE)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.mark.notebook
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    """Executed on a copy: what it writes stays out of the repository."""
    copy = tmp_path / notebook.name
    copy.write_bytes(notebook.read_bytes())
    command = [sys.executable, "-m", "pytest", "--nbmake", "-p", "no:cacheprovider"]
    environment = os.environ | {"KVISION_SMOKE": "1", "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run(
        [*command, "--nbmake-timeout=600", "-c", os.devnull, str(copy)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:]
