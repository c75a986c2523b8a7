"""What every recipe has: data, model, optimizer, schedule, run; as plain values.

A recipe is what `kvision.train.fit` runs, what a YAML file holds, and what every run
writes into its folder. Each task has one of its own with settings of its own.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import yaml

from kvision.train.files import write_text
from kvision.train.precision import fastest_policy
from kvision.train.settings import (
    convert_fields,
    read_assignments,
    read_yaml,
    setting,
    unknown,
)

__all__ = ["Recipe", "num_updates"]

_LONGEST_WARMUP = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of every task. Wrong types, ranges and names are errors.

    Args:
        data: what to train on.
        val: what to validate on; by default found beside the training data, and else
            some of the training images are set apart.
        val_fraction: share of the images set apart where there is no other validation
            data; 0 trains on all and validates nothing.
        class_names: classes to train; by default all of the data.

        model: name of a builder in `kvision.models`.
        weights: what the model begins with.
        image_size: (height, width) of the model's input in pixels.
        dtype: such as "mixed_bfloat16"; "auto" measures whether that is faster here
            than float32, the default.
        arguments: more arguments of the builder, as name: value.

        batch_size: images a step.
        accumulate: steps whose gradients make one change of the weights.
        epochs: passes over the training images.
        max_minutes: stop after this time, scored and saved like a run that ended. The
            learning rate is a function of the step, so choose `epochs` to match.
        optimizer: such as "sgd" or "adamw".
        learning_rate: its peak; the default depends on the optimizer.
        momentum: of SGD.
        weight_decay: of kernels; see `kvision.train.optimizers`.
        clipnorm: the largest norm of all gradients together.
        schedule: "cosine" to 1 % of the peak, "step" or "constant".
        milestones: for "step": shares of the run after which the rate is divided by 10.
        warmup_steps: changes of the weights in the linear warm-up; by default a tenth
            of the run, at most 500.
        ema: momentum of a moving average of the weights a change, such as 0.99, which
            is then what is scored and saved.
        seed: of weights, order, augmentation and sampling.
        deterministic: whether two runs of a recipe are equal to the last bit, at a few
            per cent of the speed. On a CPU only. (Some of TensorFlow's gradients depend
            on the order of its threads otherwise.)
        jit_compile: whether XLA compiles the steps; "auto" does on an accelerator.

        cache: true keeps decoded images in memory, a path in that folder.
        on_error: "raise" stops at faults of the data, "skip" leaves them out and counts
            them.

        evaluate_every: epochs from one validation to the next; the last is always one.
        monitor: figure that says which epoch is best.
        patience: stop after so many validations without a better one.
        checkpoint_minutes: time between checkpoints within an epoch; there is one at
            the end of each epoch anyway.
        num_pictures: validation images drawn into the run folder.
    """

    task: ClassVar[str]
    # Settings that are paths, made absolute for the run folder.
    _paths: ClassVar[tuple[str, ...]] = ("data", "val")

    data: str
    val: str | None = None
    val_fraction: float = setting(0.2, least=0, below=1)
    class_names: list[str] | None = None

    model: str
    weights: str | None = None
    image_size: tuple[int, int]
    dtype: str | None = None
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    batch_size: int = setting(4, least=1)
    accumulate: int = setting(1, least=1)
    epochs: int = setting(20, least=1)
    max_minutes: float | None = setting(None, above=0)
    optimizer: str
    learning_rate: float | None = setting(None, above=0)
    momentum: float = setting(0.9, least=0, below=1)
    weight_decay: float = setting(1e-4, least=0)
    clipnorm: float | None = setting(None, above=0)
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[float, ...] = setting((0.7, 0.9), above=0, below=1)
    warmup_steps: int | None = setting(None, least=0)
    ema: float | None = setting(None, above=0, below=1)
    seed: int = setting(0, least=0)
    deterministic: bool = True
    jit_compile: bool | Literal["auto"] = "auto"

    cache: bool | str = False
    on_error: Literal["raise", "skip"] = "raise"

    evaluate_every: int = setting(1, least=1)
    monitor: str | None = None
    patience: int | None = setting(None, least=1)
    checkpoint_minutes: float = setting(10.0, above=0)
    num_pictures: int = setting(8, least=0)

    def __post_init__(self) -> None:
        convert_fields(self)
        known = self.model_arguments(self.model)
        for name in self.arguments:
            if name not in known:
                raise unknown(name, known)

    @classmethod
    def model_arguments(cls, model: str) -> list[str]:
        """Return the arguments of a builder that are no settings of their own.

        Args:
            model: its name.

        Returns:
            The names.
        """
        raise NotImplementedError

    @classmethod
    def from_yaml(cls, path: "str | Path") -> Self:
        """Read a recipe.

        Args:
            path: a YAML file of settings.

        Returns:
            The recipe.

        Raises:
            ValueError: a setting is unknown, wrong or missing; the message names it.
        """
        return cls.from_settings(read_yaml(Path(path)))

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """Make a recipe of settings, among them arguments of the model.

        Args:
            settings: name -> value, as in YAML.

        Returns:
            The recipe.

        Raises:
            ValueError: a setting is unknown, wrong or missing; the message names it.
        """
        settings = dict(settings)
        task = settings.pop("task", cls.task)
        if task != cls.task:
            raise ValueError(
                f"The recipe is one of `kvision train {task}`, not of "
                f"`kvision train {cls.task}`"
            )
        settings = cls._with_arguments(settings, {})
        if settings.get("data") is None:
            raise ValueError(cls._needs_data())
        return cls(**settings)

    def with_settings(self, settings: "dict[str, Any] | Iterable[str]") -> Self:
        """Return the recipe with some settings changed.

        Args:
            settings: name -> value, or texts such as "epochs=10". The names of the
                model's arguments will do too: "box_num_samples=128".

        Returns:
            A new recipe.

        Raises:
            ValueError: a setting is unknown or wrong; the message names it.
        """
        if not isinstance(settings, dict):
            settings = read_assignments(settings)
        changes = self._with_arguments(settings, self.arguments, self.model)
        return dataclasses.replace(self, **changes)

    def to_yaml(self, path: "str | Path") -> None:
        """Write the recipe; `from_yaml` reads it back.

        Args:
            path: the YAML file.
        """
        settings = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }
        text = yaml.safe_dump(
            {"task": self.task, **settings}, sort_keys=False, default_flow_style=None
        )
        write_text(Path(path), text)

    def resolved(self, steps_per_epoch: int, has_validation: bool) -> Self:
        """Fill in what a setting of none stands for, and make paths absolute.

        Args:
            steps_per_epoch: batches of the training data.
            has_validation: whether there is data to validate on.

        Returns:
            The recipe to write into a run folder.
        """
        filled: dict[str, Any] = {
            "warmup_steps": min(
                num_updates(self, steps_per_epoch) // 10, _LONGEST_WARMUP
            ),
            "monitor": "loss",
            "dtype": "float32",
            **self._defaults(has_validation),
        }
        changes = {k: v for k, v in filled.items() if getattr(self, k) is None}
        if self.dtype == "auto":
            changes["dtype"] = fastest_policy()
        for name in self._paths:
            if (path := getattr(self, name)) is not None:
                changes[name] = str(Path(path).absolute())
        return dataclasses.replace(self, **changes)

    def _defaults(self, has_validation: bool) -> dict[str, Any]:
        """Return what settings of none stand for in this task."""
        raise NotImplementedError

    @classmethod
    def _needs_data(cls) -> str:
        """Return the message where there is no data."""
        raise NotImplementedError

    @classmethod
    def _with_arguments(
        cls,
        settings: dict[str, Any],
        arguments: dict[str, Any],
        model: str | None = None,
    ) -> dict[str, Any]:
        """Move arguments of the model under `arguments`; refuse unknown names."""
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        builder = settings.get("model") or model or fields["model"]
        known = cls.model_arguments(str(builder))
        given = settings.get("arguments") or {}
        if not isinstance(given, dict):
            raise ValueError(f"arguments must be name: value. Received: {given!r}")
        own = {key: value for key, value in settings.items() if key not in fields}
        for name in own:
            if name not in known:
                raise unknown(name, [*fields, *known])
        rest = {key: value for key, value in settings.items() if key in fields}
        if given or own:
            rest["arguments"] = {**arguments, **given, **own}
        return rest


def num_updates(recipe: Recipe, steps_per_epoch: int) -> int:
    """Count the changes of the weights in a run, which schedules are functions of.

    Args:
        recipe: the recipe.
        steps_per_epoch: batches of the training data.

    Returns:
        The number, at least 1.
    """
    return max(1, recipe.epochs * steps_per_epoch // recipe.accumulate)
