"""A run with a model of three weights: all of `fit` but the detector, in a second."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from kvision.train import checkpoints
from kvision.train.best import Best
from kvision.train.interrupts import Interrupted, Interrupts
from kvision.train.opening import Run
from kvision.train.optimizers import make_optimizer
from kvision.train.position import Position
from kvision.train.recipes import DetectRecipe
from kvision.train.run import RunResult, _Training
from kvision.train.schedules import WarmupCosine
from kvision.train.state import restore

STEPS = 3  # an epoch
EPOCHS = 3
BATCH = 2


@keras.saving.register_keras_serializable("kvision_tests")
class Toy(keras.Model):
    """y = w x, trained on targets with image ids as a detector is."""

    class_names = ("a",)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        self.mean = keras.metrics.Mean(name="loss")

    def build(self, input_shape: Any = None) -> None:
        self.dense.build((None, 3))

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, targets = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x)[:, 0] - targets["y"]) ** 2)
        weights = self.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self.mean.update_state(loss)
        return {"loss": self.mean.result()}


def training_set(epoch: int, step: int, spoilt: tuple[int, int] | None = None) -> Any:
    """Batches as a pure function of the step; at `spoilt` the targets are infinite."""
    first = epoch * STEPS + step
    bad = -1 if spoilt is None else spoilt[0] * STEPS + spoilt[1]

    def batch(number: tf.Tensor) -> Any:
        seed = tf.stack([tf.cast(number, tf.int32), 7])
        x = tf.random.stateless_normal((BATCH, 3), seed)
        y = 3 * x[:, 0] - x[:, 2] + tf.where(number == bad, np.inf, 0.0)
        ids = number * 10 + tf.range(BATCH, dtype=tf.int64)
        return x, {"y": y, "image_ids": ids}

    dataset = tf.data.Dataset.range(first, 10**6).map(batch)
    dataset.class_names = ["a"]
    dataset.image_ids = list(range(6))
    dataset.num_images = 6
    return dataset


class Metrics:
    """Stands for COCOMetrics: the score is that of the first weight."""

    def __init__(self, on_score: Any = None) -> None:
        self.scores: dict[str, Any] = {}
        self.seen: list[float] = []
        self.on_score = on_score

    def set_model(self, model: keras.Model) -> None:
        self.model = model

    def on_train_begin(self) -> None:
        pass

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        # Validation uses the metrics that the training loss is in.
        self.model.reset_metrics()
        self.seen.append(first_weight(self.model))
        if self.on_score:
            self.on_score(epoch)
        self.scores = {"box_ap": self.seen[-1]}
        logs["val_box_ap"] = self.seen[-1]


def first_weight(model: keras.Model) -> float:
    return float(model.dense.kernel.numpy()[0, 0])


def open_run(
    folder: Path,
    *,
    spoilt: tuple[int, int] | None = None,
    rate: float = 0.1,
    monitor: str = "val_box_ap",
    **settings: Any,
) -> Run:
    """Begin a run in a folder, or go on with the one that is there."""
    settings = {"epochs": EPOCHS, "num_pictures": 0, "ema": 0.5, **settings}
    recipe = DetectRecipe(data=".", monitor=monitor, **settings)
    model = Toy()
    model.build()
    schedule = WarmupCosine(rate, 2 * EPOCHS * STEPS, 2)
    model.compile(
        make_optimizer("sgd", schedule, model.trainable_variables, ema=recipe.ema)
    )
    sources: Any = SimpleNamespace(
        val=None, training=lambda epoch, step: training_set(epoch, step, spoilt)
    )
    state: dict[str, Any] = {"epoch": 0, "step": 0, "seconds": 0.0}
    state["best"] = Best(monitor).to_dict()
    damaged: tuple[str, ...] = ()
    if folder.exists():
        checkpoint = checkpoints.read_newest(folder / "checkpoints")
        state, damaged = checkpoint.state, checkpoint.damaged
        restore(model, checkpoint.arrays)
    else:
        folder.mkdir(parents=True)
    position = Position(STEPS, state["epoch"], state["step"])
    position.set_model(model)
    position.keep_means()
    return Run(
        folder=folder,
        recipe=recipe,
        sources=sources,
        train_set=training_set(state["epoch"], state["step"], spoilt),
        val_set=None,
        model=model,
        position=position,
        best=Best(**state["best"]),
        seconds_before=state["seconds"],
        damaged=damaged,
    )


def train(
    run: Run,
    callbacks: tuple[keras.callbacks.Callback, ...] = (),
    metrics: Metrics | None = None,
    output: io.StringIO | None = None,
) -> RunResult | Interrupted:
    """Train a run; an interruption is returned."""
    interrupts = Interrupts()
    console = Console(file=output or io.StringIO(), width=200)
    with interrupts.handled():
        training = _Training(run, list(callbacks), interrupts, console)
        training.validation.metrics = metrics or Metrics()
        training.validation.losses = False
        try:
            return training.train()
        except Interrupted as interrupted:
            return interrupted


def final_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Everything the newest checkpoint holds."""
    return checkpoints.read_newest(folder / "checkpoints").arrays


def lines(folder: Path) -> list[str]:
    """The lines of results.csv without the time."""
    table = [line.split(",") for line in (folder / "results.csv").read_text().split()]
    seconds = table[0].index("seconds")
    return [",".join(row[:seconds] + row[seconds + 1 :]) for row in table]
