"""`fit`: a recipe becomes a run folder with a trained model."""

import json
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from rich.console import Console

from kvision.models import Detector
from kvision.train import checkpoints
from kvision.train.averaging import averaged_weights
from kvision.train.best import Best
from kvision.train.build import build_model, check_monitor
from kvision.train.checkpointing import Checkpointing
from kvision.train.coco_metrics import COCOMetrics
from kvision.train.finite import FiniteLoss
from kvision.train.interrupts import Interrupted, Interrupts
from kvision.train.pictures import draw_curves, draw_training
from kvision.train.position import Position
from kvision.train.progress import ProgressReport
from kvision.train.recipes import DetectRecipe
from kvision.train.results_file import ResultsFile
from kvision.train.run_folder import (
    describe_run,
    make_folder,
    name_of_data,
    read_recipe,
)
from kvision.train.saving import load_weights, save_model
from kvision.train.sources import Sources, find_sources
from kvision.train.state import restore
from kvision.train.validation import Validation

__all__ = ["RunResult", "fit"]

Changes = dict[str, Any] | list[str]

# More classes than this get no column each in results.csv.
_MOST_COLUMNS = 30


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        folder: the run folder.
        model: the detector with the weights of the best epoch.
        scores: figures of the best epoch, as in its `best.json`.
        stopped: "epochs" where all were run, "patience" or "time".
        epochs: epochs begun.
        seconds: time of the run, that before a resumption included.
    """

    folder: Path
    model: Detector
    scores: dict[str, Any]
    stopped: Literal["epochs", "patience", "time"]
    epochs: int
    seconds: float


def fit(
    recipe: DetectRecipe | None = None,
    *,
    resume: "str | Path | None" = None,
    changes: Changes | None = None,
    name: str | None = None,
    runs: "str | Path" = "runs",
    callbacks: Iterable[keras.callbacks.Callback] = (),
    console: Console | None = None,
) -> RunResult:
    """Train a detector as a recipe says, or go on with a run.

    The run folder receives `recipe.yaml` with every default filled in,
    `environment.yaml`, `train_images.jpg`, and as it goes `results.csv`, `curves.png`,
    `best.keras`, `best.json`, `validation/*.jpg`, `checkpoints/`; at the end
    `last.keras`.

    Ctrl-C and SIGTERM end the run after the step in work: a checkpoint is written
    and the command to go on is printed. A run that goes on continues with the next
    batch and equals one that never stopped.

    Args:
        recipe: how to train; seeds Python, NumPy and Keras.
        resume: instead of a recipe, the folder of a run to go on with.
        changes: settings to change in a run that goes on, such as ["epochs=30"].
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
    console = console or Console()
    with interrupts.handled():
        try:
            with interrupts.allowed():
                run = _open(recipe, resume, changes, name, Path(runs), console)
            return run.train(list(callbacks), interrupts)
        except Interrupted as error:
            raise error.as_usual() from None


def _open(
    recipe: DetectRecipe | None,
    resume: "str | Path | None",
    changes: Changes | None,
    name: str | None,
    runs: Path,
    console: Console,
) -> "_Run":
    if resume is None and recipe is not None:
        if changes:
            recipe = recipe.with_settings(changes)
        return _Run.new(recipe, runs, name, console)
    if resume is not None and recipe is None:
        return _Run.resumed(Path(resume), changes or {}, console)
    raise ValueError("fit takes a recipe, or resume= with the folder of a run")


@dataclass
class _Run:
    """A run that is ready to train."""

    folder: Path
    recipe: DetectRecipe
    sources: Sources
    train_set: Any
    val_set: Any
    model: Detector
    position: Position
    best: Best
    console: Console
    seconds_before: float = 0.0
    damaged: tuple[str, ...] = ()

    @classmethod
    def new(
        cls, recipe: DetectRecipe, runs: Path, name: str | None, console: Console
    ) -> "_Run":
        """Read the data, build the model, and only then make the folder."""
        keras.utils.set_random_seed(recipe.seed)
        sources = find_sources(recipe)
        train_set = sources.training()
        val_set = sources.validation(train_set.class_names)
        steps = train_set.steps_per_epoch
        recipe = recipe.resolved(steps, val_set is not None)
        model = build_model(recipe, train_set.class_names, steps)
        check_monitor(recipe, model, val_set is not None)
        folder = make_folder(runs, name or name_of_data(recipe.data))
        draw_training(train_set, model.class_names, folder / "train_images.jpg")
        return cls(
            folder=folder,
            recipe=recipe,
            sources=sources,
            train_set=train_set,
            val_set=val_set,
            model=model,
            position=Position(steps),
            best=Best(str(recipe.monitor)),
            console=console,
        )

    @classmethod
    def resumed(cls, folder: Path, changes: Changes, console: Console) -> "_Run":
        """Build the run anew and put its newest whole checkpoint into it."""
        recipe = read_recipe(folder, changes)
        keras.utils.set_random_seed(recipe.seed)
        checkpoint = checkpoints.read_newest(folder / "checkpoints")
        state = checkpoint.state
        epoch, step = state["epoch"], state["step"]
        _refuse_finished(folder, recipe, state)
        sources = find_sources(recipe)
        train_set = sources.training(epoch, step)
        _refuse_other_data(_identity(train_set), state["data"])
        val_set = sources.validation(train_set.class_names)
        steps = train_set.steps_per_epoch
        model = build_model(recipe, train_set.class_names, steps, load_weights=False)
        restore(model, checkpoint.arrays)
        position = Position(steps, epoch, step)
        position.set_model(model)
        position.keep_means()
        return cls(
            folder=folder,
            recipe=recipe,
            sources=sources,
            train_set=train_set,
            val_set=val_set,
            model=model,
            position=position,
            best=Best(**state["best"]),
            console=console,
            seconds_before=state["seconds"],
            damaged=checkpoint.damaged,
        )

    def train(
        self, callbacks: list[keras.callbacks.Callback], interrupts: Interrupts
    ) -> RunResult:
        """Train to the end, and leave the folder in order however it ends."""
        began = time.monotonic()

        def clock() -> float:
            return self.seconds_before + time.monotonic() - began

        describe_run(self.folder, self.recipe)
        self._greet()
        finite = FiniteLoss(self.position, self._image_ids)
        validation = self._validation(interrupts)
        results = ResultsFile(self.folder / "results.csv", self.position.epoch)
        saver = self._checkpointing(finite, interrupts, clock)
        report = ProgressReport(self.console, self.position, self.recipe.epochs)
        record = _Record(results, self.position, clock)
        parts = [self.position, finite, validation, *callbacks, record, saver, report]
        try:
            self._fit(parts)
        except Interrupted:
            report.close()
            saver.write_interrupted()
            self._save_last()
            self._tell_how_to_go_on()
            raise
        except Exception:
            report.close()
            self._tell_how_to_go_on()
            raise
        finally:
            record.draw()
        return self._finish(validation, saver, clock())

    def _fit(self, parts: list[keras.callbacks.Callback]) -> None:
        epochs = self.recipe.epochs
        if self.position.epoch_is_complete:
            # Stopped between the last step of an epoch and its validation.
            self._validate(parts)
        first = self.position.next[0]
        if first < epochs and not self.model.stop_training:
            self.model.fit(
                self.train_set,
                epochs=epochs,
                initial_epoch=first,
                steps_per_epoch=self.position.steps_per_epoch,
                callbacks=parts,
                verbose=0,
                shuffle=False,
            )

    def _validate(self, parts: list[keras.callbacks.Callback]) -> None:
        """Do what the end of an epoch does, its steps being done."""
        self.model.stop_training = False
        every = keras.callbacks.CallbackList(
            parts, model=self.model, epochs=self.recipe.epochs
        )
        self.position.put_back_means()
        logs = {metric.name: float(metric.result()) for metric in self.model.metrics}
        every.on_train_begin()
        every.on_epoch_end(self.position.epoch, logs)
        every.on_train_end()

    def _validation(self, interrupts: Interrupts) -> Validation:
        metrics = None
        if self.val_set is not None and self.sources.val is not None:
            metrics = COCOMetrics(
                self.val_set,
                self.sources.val[0],
                max_detections=self.model.max_detections,
                per_class=1 < len(self.model.class_names) <= _MOST_COLUMNS,
            )
        return Validation(
            self.folder,
            self.best,
            metrics,
            epochs=self.recipe.epochs,
            every=self.recipe.evaluate_every,
            losses=self.recipe.validation_loss,
            patience=self.recipe.patience,
            num_pictures=self.recipe.num_pictures,
            interrupts=interrupts,
        )

    def _checkpointing(
        self, finite: FiniteLoss, interrupts: Interrupts, clock: Any
    ) -> Checkpointing:
        return Checkpointing(
            self.folder / "checkpoints",
            self.position,
            self.best,
            finite,
            interrupts,
            data=_identity(self.train_set),
            minutes=self.recipe.checkpoint_minutes,
            max_minutes=self.recipe.max_minutes,
            clock=clock,
        )

    def _image_ids(self, epoch: int, step: int) -> list[int]:
        """Return the images of a batch, by making it again."""
        batch = next(iter(self.sources.training(epoch, step).take(1)))
        return [int(image_id) for image_id in batch[1]["image_ids"]]

    def _save_last(self) -> None:
        with averaged_weights(self.model):
            save_model(self.model, self.folder / "last.keras")

    def _finish(
        self, validation: Validation, saver: Checkpointing, seconds: float
    ) -> RunResult:
        self._save_last()
        scores: dict[str, Any] = {}
        if validation.best_path.exists():
            load_weights(self.model, validation.best_path)
            scores = json.loads((self.folder / "best.json").read_text(encoding="utf-8"))
            validation.set_model(self.model)
            validation.draw()
        stopped: Literal["epochs", "patience", "time"] = "epochs"
        if validation.ran_out_of_patience:
            stopped = "patience"
        elif saver.time_is_up:
            stopped = "time"
        self._farewell(stopped)
        epochs = self.position.epoch + 1
        return RunResult(self.folder, self.model, scores, stopped, epochs, seconds)

    def _greet(self) -> None:
        for text in self.damaged:
            self._say(
                f"A checkpoint could not be used, going back to the one before: {text}"
            )
        num_val = self.val_set.num_images if self.val_set is not None else 0
        epoch, step = self.position.next
        self._say(
            f"{self.folder}: {self.train_set.num_images} images to train on, {num_val} "
            f"to validate on, {len(self.model.class_names)} classes, "
            f"{self.position.steps_per_epoch} steps an epoch"
        )
        if epoch or step:
            self._say(f"Going on with epoch {epoch + 1}, step {step + 1}")

    def _farewell(self, stopped: str) -> None:
        if stopped == "patience":
            self._say(
                f"Stopped: {self.best.monitor} has not become better in "
                f"{self.best.waited} validations"
            )
        elif stopped == "time":
            self._say(f"Stopped after max_minutes={self.recipe.max_minutes:g}")
            self._tell_how_to_go_on()
        if self.best.value is not None and self.best.epoch is not None:
            self._say(
                f"Best: {self.best.monitor} {self.best.value:.3f} in epoch "
                f"{self.best.epoch + 1}, {self.folder}/best.keras"
            )

    def _tell_how_to_go_on(self) -> None:
        if any((self.folder / "checkpoints").glob("*.json")):
            self._say(f"To go on: kvision train detect --resume {self.folder}")

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class _Record(keras.callbacks.Callback):
    """Completes an epoch's figures, writes them down and draws their curves."""

    def __init__(self, results: ResultsFile, position: Position, clock: Any) -> None:
        super().__init__()
        self.results = results
        self.position = position
        self.clock = clock
        self._drawn_at = time.monotonic()
        self._told = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the line of an epoch."""
        optimizer = self.model.optimizer
        figures = {
            "step": float(optimizer.iterations),
            "seconds": self.clock(),
            "learning_rate": float(optimizer.learning_rate),
            **(logs or {}),
        }
        self.results.on_epoch_end(epoch, figures)
        if time.monotonic() - self._drawn_at > 60:
            self.draw()

    def draw(self) -> None:
        """Draw the curves, if there is a line and matplotlib."""
        if self.results.rows and not self._told:
            path = self.results.path
            self._told = not draw_curves(path, path.with_name("curves.png"))
            self._drawn_at = time.monotonic()


def _identity(dataset: Any) -> dict[str, Any]:
    """Describe training data so that other data is noticed."""
    ids = np.asarray(dataset.image_ids, np.int64)
    return {
        "class_names": list(dataset.class_names),
        "num_images": len(ids),
        "image_ids": zlib.crc32(ids.tobytes()),
    }


def _refuse_other_data(here: dict[str, Any], then: dict[str, Any]) -> None:
    for name, value in then.items():
        if here.get(name) != value:
            raise ValueError(
                "The training data is not what the run was begun with, so it cannot go "
                f"on: {name} was {value} and is {here.get(name)}"
            )


def _refuse_finished(folder: Path, recipe: DetectRecipe, state: dict[str, Any]) -> None:
    if state["epoch"] >= recipe.epochs:
        raise ValueError(
            f"{folder} is finished: {state['epoch']} of {recipe.epochs} epochs are "
            f"done. To train longer: --resume {folder} epochs={2 * recipe.epochs}"
        )
    waited = state["best"]["waited"]
    if recipe.patience is not None and waited >= recipe.patience:
        raise ValueError(
            f"{folder} has stopped: no better epoch in {waited} validations. To go on "
            f"nevertheless: --resume {folder} patience={2 * recipe.patience}"
        )
