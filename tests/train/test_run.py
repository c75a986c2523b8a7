"""What a run does besides training: best model, patience, NaN, files, reports."""

import io
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

from kvision.train import pictures
from kvision.train.checkpoints import read_newest
from kvision.train.finite import NonFiniteLossError
from kvision.train.interrupts import Interrupts
from kvision.train.recipes import DetectRecipe
from kvision.train.run import RunResult, fit
from kvision.train.validation import Validation
from tests.train import toy


class Scores(toy.Metrics):
    """Scores that are given."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = list(values)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        super().on_epoch_end(epoch, logs)
        self.scores = {"box_ap": self.values[epoch]}
        logs["val_box_ap"] = self.values[epoch]


def test_best_model_is_that_of_the_best_epoch(tmp_path: Path) -> None:
    metrics = Scores(0.2, 0.5, 0.3)
    result = toy.train(toy.open_run(tmp_path / "run"), metrics=metrics)
    assert isinstance(result, RunResult)
    best = keras.models.load_model(tmp_path / "run/best.keras")
    last = keras.models.load_model(tmp_path / "run/last.keras")
    assert toy.first_weight(best) == metrics.seen[1] != toy.first_weight(last)
    assert toy.first_weight(result.model) == metrics.seen[1]
    assert (result.scores["epoch"], result.scores["box_ap"]) == (1, 0.5)
    assert json.loads((tmp_path / "run/best.json").read_text()) == result.scores
    # No optimizer in it: the file would be two or three times as large.
    assert not best.compiled


def test_a_monitored_loss_is_best_when_smallest(tmp_path: Path) -> None:
    run = toy.open_run(tmp_path / "run", monitor="loss")
    toy.train(run)
    losses = [float(line.split(",")[3]) for line in toy.lines(run.folder)[1:]]
    assert run.best.epoch == int(np.argmin(losses))
    assert run.best.value == pytest.approx(min(losses), rel=1e-5)


def test_averages_are_scored_and_saved_and_training_goes_on_without(
    tmp_path: Path,
) -> None:
    run = toy.open_run(tmp_path / "run")
    averages: list[float] = []
    weights: list[float] = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            optimizer = self.model.optimizer
            weights.append(toy.first_weight(self.model))
            average = optimizer._model_variables_moving_average[0]
            averages.append(float(average.numpy()[0, 0]))

    metrics = toy.Metrics()
    toy.train(run, (Spy(),), metrics)
    # The average by hand, momentum 0.5, from the weights after each step.
    expected = weights[0]
    for weight, average in zip(weights[1:], averages[1:], strict=True):
        expected = 0.5 * expected + 0.5 * weight
        assert average == pytest.approx(expected, rel=1e-5)
    ends = [2, 5, 8]
    assert metrics.seen == [averages[i] for i in ends]
    assert metrics.seen != [weights[i] for i in ends]
    last = keras.models.load_model(run.folder / "last.keras")
    assert toy.first_weight(last) == averages[-1]


def test_patience(tmp_path: Path) -> None:
    output = io.StringIO()
    run = toy.open_run(tmp_path / "run", epochs=9, patience=2)
    scores = Scores(0.1, 0.4, 0.3, 0.4, *[0.5] * 5)
    result = toy.train(run, metrics=scores, output=output)
    assert isinstance(result, RunResult)
    # An equal value is no better one.
    assert (result.stopped, result.epochs, run.best.epoch) == ("patience", 4, 1)
    assert "val_box_ap has not become better in 2 validations" in output.getvalue()


def test_patience_counts_on_after_resuming(tmp_path: Path) -> None:
    run = toy.open_run(tmp_path / "run", epochs=2, patience=2)
    toy.train(run, metrics=Scores(0.4, 0.3))
    run = toy.open_run(tmp_path / "run", epochs=9, patience=2)
    assert run.best.waited == 1
    result = toy.train(run, metrics=Scores(*[0.0] * 9))
    assert isinstance(result, RunResult)
    assert (result.stopped, result.epochs) == ("patience", 3)
    assert toy.first_weight(result.model) == toy.first_weight(
        keras.models.load_model(tmp_path / "run/best.keras")
    )


def test_validation_every_other_epoch_and_at_the_end(tmp_path: Path) -> None:
    run = toy.open_run(tmp_path / "run", epochs=5, evaluate_every=2)
    toy.train(run)
    table = [line.split(",") for line in toy.lines(run.folder)]
    column = table[0].index("val_box_ap")
    assert [bool(row[column]) for row in table[1:]] == [False, True, False, True, True]


def test_callbacks_of_the_user_see_the_scores(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    stop = keras.callbacks.EarlyStopping("val_box_ap", mode="max", patience=0)
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(logs)
    )
    result = toy.train(
        toy.open_run(tmp_path / "run", epochs=9),
        (note, stop),
        metrics=Scores(0.2, 0.1, *[0.0] * 7),
    )
    assert isinstance(result, RunResult)
    assert [logs["val_box_ap"] for logs in seen] == [0.2, 0.1]


@pytest.mark.parametrize("step", [0, 2])
def test_nan_stops_with_step_and_images(tmp_path: Path, step: int) -> None:
    folder, output = tmp_path / "run", io.StringIO()
    with pytest.raises(NonFiniteLossError) as caught:
        toy.train(toy.open_run(folder, spoilt=(1, step)), output=output)
    error = caught.value
    number = toy.STEPS + step
    assert (error.epoch, error.step) == (1, step)
    assert error.image_ids == [10 * number, 10 * number + 1]
    text = str(error)
    assert f"epoch 2, step {step + 1}. Images of that batch: {error.image_ids}" in text
    before = [10 * (number - 1), 10 * (number - 1) + 1]
    assert (f"Of the one before: {before}" in text) == (step > 0)
    assert f"kvision train detect --resume {folder}" in output.getvalue()
    # TerminateOnNaN deletes the backup, or leaves one that contains NaN.
    checkpoint = read_newest(folder / "checkpoints")
    assert (checkpoint.state["epoch"], checkpoint.state["step"]) == (1, 0)
    assert all(np.isfinite(array).all() for array in checkpoint.arrays.values())
    # With the images mended it goes on.
    assert isinstance(toy.train(toy.open_run(folder)), RunResult)


def test_nan_weights_are_not_saved_although_the_loss_is_finite(tmp_path: Path) -> None:
    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                self.model.dense.kernel.assign(np.full((3, 1), np.nan))

    folder = tmp_path / "run"
    with pytest.raises(NonFiniteLossError, match=r"the weights\) in epoch 2, step 3"):
        toy.train(toy.open_run(folder), (Spoil(),))
    arrays = read_newest(folder / "checkpoints").arrays
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_an_error_of_the_data_leaves_the_folder_in_order(tmp_path: Path) -> None:
    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self.model.optimizer.iterations == 5:
                raise OSError("the disk is gone")

    folder, output = tmp_path / "run", io.StringIO()
    with pytest.raises(OSError, match="the disk is gone"):
        toy.train(toy.open_run(folder), (Fail(),), output=output)
    assert f"--resume {folder}" in output.getvalue()
    assert len(toy.lines(folder)) == 2
    assert (folder / "curves.png").exists()
    assert isinstance(toy.train(toy.open_run(folder)), RunResult)


def test_without_matplotlib_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ImportError("Curves need matplotlib: pip install 'kvision[viz]'")

    monkeypatch.setattr(pictures, "plot_history", fail)
    result = toy.train(toy.open_run(tmp_path / "run"))
    assert isinstance(result, RunResult)
    assert [record.getMessage() for record in caplog.records] == [
        "No curves.png: Curves need matplotlib: pip install 'kvision[viz]'"
    ]


def test_the_folder_says_what_was_run_and_on_what(tmp_path: Path) -> None:
    run = toy.open_run(tmp_path / "run")
    toy.train(run)
    assert DetectRecipe.from_yaml(run.folder / "recipe.yaml") == run.recipe
    toy.train(toy.open_run(run.folder, epochs=toy.EPOCHS + 1))
    sessions = yaml.safe_load((run.folder / "environment.yaml").read_text())
    assert len(sessions) == 2
    assert sessions[0]["packages"]["keras"] == keras.__version__
    assert sessions[0]["devices"] == ["CPU"] or "GPU" in str(sessions[0]["devices"])


def test_progress_without_a_terminal(tmp_path: Path) -> None:
    output = io.StringIO()
    toy.train(toy.open_run(tmp_path / "run"), output=output)
    text = output.getvalue().splitlines()
    assert text[0].endswith(
        "6 images to train on, 0 to validate on, classes: 1, 3 steps an epoch"
    )
    assert text[1].startswith("Tracing the first step")
    assert text[2].startswith("epoch 1/3  step 1/3  loss ")
    assert [line[:10] for line in text[3:6]] == [f"epoch {n}/3 " for n in (1, 2, 3)]
    assert " box_ap 1." in text[3]
    assert text[6].startswith("Best: val_box_ap ")
    assert len(text) == 7


def test_fit_takes_a_recipe_or_a_folder() -> None:
    for wrong in ({}, {"recipe": DetectRecipe(data="."), "resume": "runs/x"}):
        with pytest.raises(ValueError, match="a recipe, or resume="):
            fit(**wrong)


def test_a_validation_without_metrics_monitors_the_loss(tmp_path: Path) -> None:
    run = toy.open_run(tmp_path / "run", monitor="loss")
    validation = Validation(
        run.folder,
        run.best,
        None,
        run.model,
        run.task.draw_validation,
        epochs=5,
        interrupts=Interrupts(),
    )
    validation.set_model(run.model)
    run.model.stop_training = False
    validation.on_train_begin()
    for epoch, loss in enumerate([3.0, 2.0, 2.5]):
        validation.on_epoch_end(epoch, {"loss": loss})
    assert (run.best.epoch, run.best.value, run.best.waited) == (1, 2.0, 1)
