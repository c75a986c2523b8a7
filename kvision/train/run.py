"""`fit`: a recipe becomes a run folder with a trained model."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
from rich.console import Console

from kvision.train.averaging import averaged_weights
from kvision.train.checkpointing import Checkpointing
from kvision.train.finite import FiniteLoss
from kvision.train.interrupts import Interrupted, Interrupts
from kvision.train.opening import Run, begin, go_on
from kvision.train.progress import ProgressReport
from kvision.train.recipe import Recipe
from kvision.train.results_file import ResultsFile
from kvision.train.run_folder import describe_run
from kvision.train.saving import load_weights, save_model
from kvision.train.validation import Validation

__all__ = ["RunResult", "fit"]

Changes = dict[str, Any] | list[str]
Stopped = Literal["epochs", "patience", "time"]


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        folder: the run folder.
        model: the model with the weights of the best epoch.
        scores: figures of the best epoch, as in its `best.json`.
        stopped: "epochs" where all were run, "patience" or "time".
        epochs: epochs begun.
        seconds: time of the run, that before a resumption included.
    """

    folder: Path
    model: keras.Model
    scores: dict[str, Any]
    stopped: Stopped
    epochs: int
    seconds: float


def fit(
    recipe: Recipe | None = None,
    *,
    resume: "str | Path | None" = None,
    changes: Changes | None = None,
    name: str | None = None,
    runs: "str | Path" = "runs",
    callbacks: Iterable[keras.callbacks.Callback] = (),
    console: Console | None = None,
) -> RunResult:
    """Train a model as a recipe says, or go on with a run.

    The run folder receives `recipe.yaml` with every default filled in,
    `environment.yaml`, `train_images.jpg`, and as it goes `results.csv`, `curves.png`,
    `best.keras`, `best.json`, `validation/`, `checkpoints/`; at the end `last.keras`.

    Ctrl-C and SIGTERM end the run after the step in work: a checkpoint is written
    and the command to go on is printed. A run that goes on continues with the next
    batch and equals one that never stopped: to the last bit where the recipe is
    `deterministic`, which switches TensorFlow to deterministic kernels for the rest of
    the process.

    Args:
        recipe: how to train, a `DetectRecipe` or a `ClassifyRecipe`; seeds Python,
            NumPy and Keras.
        resume: instead of a recipe, the folder of a run to go on with.
        changes: settings to change, such as ["epochs=30"]; few can when a run goes on.
        name: name of the new run's folder; by default that of the data.
        runs: where the run folders are.
        callbacks: called after each epoch's validation, so that they see its figures.
        console: where progress is reported; by default the terminal.

    Returns:
        The model and its figures.

    Raises:
        ValueError: the recipe, the data or the run folder has a fault.
        NonFiniteLossError: the loss became NaN or infinite; a `ValueError`.
        KeyboardInterrupt: on Ctrl-C, everything being saved.
        SystemExit: on SIGTERM, with 143, everything being saved.
    """
    interrupts = Interrupts()
    with interrupts.handled():
        try:
            with interrupts.allowed():
                run = _open(recipe, resume, changes, name, Path(runs))
            training = _Training(run, list(callbacks), interrupts, console or Console())
            return training.train()
        except Interrupted as error:
            raise error.as_usual() from None


def _open(
    recipe: Recipe | None,
    resume: "str | Path | None",
    changes: Changes | None,
    name: str | None,
    runs: Path,
) -> Run:
    if resume is None and recipe is not None:
        return begin(recipe.with_settings(changes or {}), runs, name)
    if resume is not None and recipe is None:
        return go_on(Path(resume), changes or {})
    raise ValueError("fit takes a recipe, or resume= with the folder of a run")


class _Training:
    """A run and its callbacks, from the first step to a folder in order."""

    def __init__(
        self,
        run: Run,
        callbacks: list[keras.callbacks.Callback],
        interrupts: Interrupts,
        console: Console,
    ) -> None:
        self.run = run
        self.console = console
        self.began = time.monotonic()
        position = run.position
        finite = FiniteLoss(position, run.image_ids)
        self.product = run.task.product_of(run.model)
        self.validation = _validation(run, self.product, interrupts)
        path = run.folder / "results.csv"
        self.results = ResultsFile(path, self.seconds, position.epoch)
        self.saver = Checkpointing(
            run.folder / "checkpoints",
            position,
            run.best,
            finite,
            interrupts,
            data=run.task.identity(run.train_set),
            minutes=run.recipe.checkpoint_minutes,
            max_minutes=run.recipe.max_minutes,
            clock=self.seconds,
        )
        self.report = ProgressReport(console, position, run.recipe.epochs)
        # Each needs what those before it have done; see their docstrings.
        self.parts = [position, finite, self.validation, *callbacks]
        self.parts += [self.results, self.saver, self.report]

    def seconds(self) -> float:
        """Return the time of the run so far, that of earlier processes included."""
        return self.run.seconds_before + time.monotonic() - self.began

    def train(self) -> RunResult:
        """Train to the end, and leave the folder in order however it ends."""
        describe_run(self.run.folder, self.run.recipe)
        self._greet()
        try:
            self._fit()
        except Interrupted:
            self.report.close()
            self.saver.write_interrupted()
            self._save_last()
            self._tell_how_to_go_on()
            raise
        except Exception:
            self.report.close()
            self._tell_how_to_go_on()
            raise
        finally:
            self.results.draw()
        return self._finish()

    def _fit(self) -> None:
        run = self.run
        epoch, _ = run.position.next
        if run.position.epoch_is_complete:
            # Stopped between the last step of an epoch and its validation.
            self._end_epoch()
        if epoch < run.recipe.epochs and not run.model.stop_training:
            run.model.fit(
                run.train_set,
                epochs=run.recipe.epochs,
                initial_epoch=epoch,
                steps_per_epoch=run.position.steps_per_epoch,
                callbacks=self.parts,
                verbose=0,
                shuffle=False,
            )

    def _end_epoch(self) -> None:
        """Do what the end of an epoch does, its steps being done."""
        model = self.run.model
        model.stop_training = False
        self.run.position.put_back_means()
        logs = {k: float(v) for k, v in model.get_metrics_result().items()}
        parts = keras.callbacks.CallbackList(
            self.parts, model=model, epochs=self.run.recipe.epochs
        )
        parts.on_train_begin()
        parts.on_epoch_end(self.run.position.epoch, logs)
        parts.on_train_end()

    def _save_last(self) -> None:
        with averaged_weights(self.run.model):
            save_model(self.product, self.run.folder / "last.keras")

    def _finish(self) -> RunResult:
        run = self.run
        seconds = self.seconds()
        self._save_last()
        scores: dict[str, Any] = {}
        if self.validation.best_path.exists():
            load_weights(self.product, self.validation.best_path)
            scores = json.loads((run.folder / "best.json").read_text(encoding="utf-8"))
            self.validation.draw()
        stopped: Stopped = "epochs"
        if self.validation.ran_out_of_patience:
            stopped = "patience"
        elif self.saver.time_is_up:
            stopped = "time"
        self._farewell(stopped)
        return RunResult(
            run.folder, self.product, scores, stopped, run.position.epoch + 1, seconds
        )

    def _greet(self) -> None:
        run = self.run
        for text in run.damaged:
            self._say(f"Going back to an earlier checkpoint: {text}")
        num_val = run.val_set.num_images if run.val_set is not None else 0
        self._say(
            f"{run.folder}: {run.train_set.num_images} images to train on, {num_val} "
            f"to validate on, classes: {len(run.train_set.class_names)}, "
            f"{run.position.steps_per_epoch} steps an epoch"
        )
        epoch, step = run.position.next
        if epoch or step:
            self._say(f"Going on with epoch {epoch + 1}, step {step + 1}")

    def _farewell(self, stopped: Stopped) -> None:
        best, recipe = self.run.best, self.run.recipe
        if stopped == "patience":
            self._say(
                f"Stopped: {best.monitor} has not become better in {best.waited} "
                "validations"
            )
        elif stopped == "time":
            self._say(f"Stopped after max_minutes={recipe.max_minutes:g}")
            self._tell_how_to_go_on()
        if best.value is not None and best.epoch is not None:
            self._say(
                f"Best: {best.monitor} {best.value:.3f} in epoch {best.epoch + 1}, "
                f"{self.validation.best_path}"
            )

    def _tell_how_to_go_on(self) -> None:
        if any(self.saver.folder.glob("*.json")):
            command = f"kvision train {self.run.recipe.task}"
            self._say(f"To go on: {command} --resume {self.run.folder}")

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _validation(run: Run, product: keras.Model, interrupts: Interrupts) -> Validation:
    """Make the callback that scores a run."""
    recipe, task = run.recipe, run.task
    validation = Validation(
        run.folder,
        run.best,
        task.make_scorer(recipe, run.sources, product, run.val_set),
        product,
        task.draw_validation,
        epochs=recipe.epochs,
        every=recipe.evaluate_every,
        losses=task.evaluates_losses(recipe),
        patience=recipe.patience,
        num_pictures=recipe.num_pictures,
        interrupts=interrupts,
    )
    # It draws after `fit` too, and after a run whose last epoch was already done.
    validation.set_model(run.model)
    return validation
