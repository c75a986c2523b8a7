"""`tf.distribute.MirroredStrategy`: two replicas train as one."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow  # TensorFlow starts anew and traces three models


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-m", "tests.models.two_replicas"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_two_replicas_equal_one(results: dict[str, Any]) -> None:
    """Losses and gradients of a batch, which is what plain SGD moves weights by."""
    one, two = results["one"], results["two"]
    assert (one["replicas"], two["replicas"]) == (1, 2)
    assert sorted(one["history"]) == sorted(two["history"])
    for name, values in one["history"].items():
        assert two["history"][name] == pytest.approx(values, rel=1e-4, abs=1e-6), name
    assert max(one["moved"]) > 0.1
    assert two["moved"] == pytest.approx(one["moved"], rel=5e-3, abs=1e-4)


def test_replica_without_an_image_is_an_error(results: dict[str, Any]) -> None:
    assert "A replica got no image" in results["error"]
    assert "drop_remainder" in results["error"]
