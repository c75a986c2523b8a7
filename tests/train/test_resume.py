"""A run that was stopped, however, and went on equals one that never was."""

import io
import os
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kvision.train.checkpoints import CheckpointError
from kvision.train.interrupts import Interrupted
from kvision.train.run import RunResult
from tests.train import toy


class SignalAfter(keras.callbacks.Callback):
    """Sends a signal to this process after so many steps or epochs."""

    def __init__(
        self, number: int, what: str = "step", sig: int = signal.SIGINT
    ) -> None:
        super().__init__()
        self.left, self.what, self.sig = number, what, sig

    def _count(self, what: str) -> None:
        self.left -= what == self.what
        if self.left == 0:
            self.left = -1
            os.kill(os.getpid(), self.sig)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._count("step")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._count("epoch")


def signal_in_validation(epoch: int) -> None:
    if epoch == 1:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    keras.utils.set_random_seed(0)
    result = toy.train(toy.open_run(folder))
    assert isinstance(result, RunResult)
    return folder


def assert_equal_runs(folder: Path, other: Path) -> None:
    ours, theirs = toy.final_arrays(folder), toy.final_arrays(other)
    assert len(ours) == len(theirs)
    for (key, array), same in zip(ours.items(), theirs.values(), strict=True):
        np.testing.assert_array_equal(array, same, err_msg=key)
    assert toy.lines(folder) == toy.lines(other)
    for name in ("best.keras", "last.keras"):
        ours, theirs = (keras.models.load_model(f / name) for f in (folder, other))
        assert toy.first_weight(ours) == toy.first_weight(theirs)


# 3 is after the last step of an epoch, before its validation.
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9])
def test_stopped_after_any_step(
    uninterrupted: Path, tmp_path: Path, steps: int
) -> None:
    folder, output = tmp_path / "run", io.StringIO()
    stopped = toy.train(toy.open_run(folder), (SignalAfter(steps),), output=output)
    assert isinstance(stopped, Interrupted)
    assert stopped.signal == signal.SIGINT
    assert f"kvision train detect --resume {folder}" in output.getvalue()
    run = toy.open_run(folder)
    epoch, step = divmod(steps - 1, toy.STEPS)
    assert (run.position.epoch, run.position.step) == (epoch, step + 1)
    assert int(run.model.optimizer.iterations) == steps
    assert isinstance(toy.train(run), RunResult)
    assert_equal_runs(folder, uninterrupted)


def test_stopped_again_and_again(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for _ in range(3):
        assert isinstance(
            toy.train(toy.open_run(folder), (SignalAfter(2),)), Interrupted
        )
    assert isinstance(toy.train(toy.open_run(folder)), RunResult)
    assert_equal_runs(folder, uninterrupted)


def test_stopped_in_validation(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    metrics = toy.Metrics(on_score=signal_in_validation)
    stopped = toy.train(toy.open_run(folder), metrics=metrics)
    assert isinstance(stopped, Interrupted)
    assert isinstance(stopped.as_usual(), SystemExit)
    assert stopped.as_usual().code == 143
    run = toy.open_run(folder)
    # The steps are done; validation has to be done again.
    assert (run.position.epoch, run.position.step) == (1, toy.STEPS)
    assert isinstance(toy.train(run), RunResult)
    assert_equal_runs(folder, uninterrupted)


def test_stopped_in_the_last_validation(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    metrics = toy.Metrics(on_score=lambda epoch: signal_in_validation(epoch - 1))
    assert isinstance(toy.train(toy.open_run(folder), metrics=metrics), Interrupted)
    run = toy.open_run(folder)
    assert isinstance(toy.train(run), RunResult)
    assert int(run.model.optimizer.iterations) == toy.STEPS * toy.EPOCHS
    assert_equal_runs(folder, uninterrupted)


def test_stopped_between_epochs(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    toy.train(toy.open_run(folder), (SignalAfter(1, "epoch"),))
    run = toy.open_run(folder)
    assert run.position.next == (1, 0)
    assert isinstance(toy.train(run), RunResult)
    assert_equal_runs(folder, uninterrupted)


def test_goes_on_from_the_checkpoint_before_a_damaged_one(
    uninterrupted: Path, tmp_path: Path
) -> None:
    folder, output = tmp_path / "run", io.StringIO()
    toy.train(toy.open_run(folder), (SignalAfter(5),))
    newest = max((folder / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:100])
    run = toy.open_run(folder)
    assert run.position.next == (1, 0)
    assert isinstance(toy.train(run, output=output), RunResult)
    assert f"Going back to an earlier checkpoint: {newest} has 100 bytes" in (
        output.getvalue()
    )
    assert_equal_runs(folder, uninterrupted)


def test_out_of_time_in_an_epoch(uninterrupted: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "run", io.StringIO()
    # Over before the first step ends; the schedule is a function of the step.
    result = toy.train(toy.open_run(folder, max_minutes=1e-9), output=output)
    assert isinstance(result, RunResult)
    assert result.stopped == "time"
    assert "Stopped after max_minutes=1e-09" in output.getvalue()
    # It was validated and saved like the end of a run.
    assert len(toy.lines(folder)) == 2
    assert (folder / "last.keras").exists()
    run = toy.open_run(folder)
    assert (run.position.epoch, run.position.step) == (0, 1)
    toy.train(run)
    ours, theirs = toy.final_arrays(folder), toy.final_arrays(uninterrupted)
    for array, same in zip(ours.values(), theirs.values(), strict=True):
        np.testing.assert_array_equal(array, same)
    assert toy.lines(folder) == toy.lines(uninterrupted)


def test_checkpoints_within_an_epoch(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    steps: list[tuple[int, int]] = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            files = (folder / "checkpoints").glob("*.json")
            steps.append((batch, len(list(files))))

    toy.train(toy.open_run(folder, checkpoint_minutes=1e-9), (Spy(),))
    # Seen before the checkpoint of the step itself; two are kept.
    assert steps[:4] == [(0, 0), (1, 1), (2, 2), (0, 2)]
    assert_equal_runs(folder, uninterrupted)


def test_longer_training_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    toy.train(toy.open_run(folder))
    result = toy.train(toy.open_run(folder, epochs=toy.EPOCHS + 1))
    assert isinstance(result, RunResult)
    assert result.epochs == toy.EPOCHS + 1
    assert len(toy.lines(folder)) == 1 + toy.EPOCHS + 1


def test_another_optimizer_is_an_error(tmp_path: Path) -> None:
    # Keras warns of optimizer variables that do not match, and goes on without them.
    folder = tmp_path / "run"
    toy.train(toy.open_run(folder, epochs=1))
    with pytest.raises(CheckpointError, match=r"variables of the optimizer.*other"):
        toy.open_run(folder, ema=None)


def test_a_damaged_manifest_alone_does_not_count_epochs_anew(tmp_path: Path) -> None:
    # Keras' BackupAndRestore restores the weights then and runs all epochs again.
    folder = tmp_path / "run"
    toy.train(toy.open_run(folder, epochs=1))
    for manifest in (folder / "checkpoints").glob("*.json"):
        manifest.unlink()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        toy.open_run(folder)
