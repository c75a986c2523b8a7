"""Learning rates over the steps of a run: a linear warm-up, then down."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

__all__ = ["WarmupCosine", "WarmupSteps"]

Tensor = Any


@keras.saving.register_keras_serializable("kvision")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Rise linearly to the peak, then fall along half a cosine.

    Args:
        peak: the largest learning rate.
        num_steps: steps of the run; afterwards the rate stays at its end.
        warmup_steps: steps from `peak * start` to `peak`.
        start: where the warm-up begins, as a part of the peak.
        end: where the cosine ends, as a part of the peak.

    Source: Loshchilov & Hutter 2017, SGDR, Eq. 5 (one period); the warm-up of Goyal et
    al. 2017, section 2.2, begun as in torchvision's `references/detection/train.py`.
    """

    def __init__(
        self,
        peak: float,
        num_steps: int,
        warmup_steps: int = 0,
        start: float = 0.001,
        end: float = 0.01,
    ) -> None:
        _check(peak, warmup_steps, num_steps)
        self.peak = peak
        self.num_steps = num_steps
        self.warmup_steps = warmup_steps
        self.start = start
        self.end = end

    def __call__(self, step: Tensor) -> Tensor:
        """Return the learning rate of a step, counted from 0."""
        step = ops.cast(step, "float32")
        length = max(1, self.num_steps - self.warmup_steps)
        share = ops.clip((step - self.warmup_steps) / length, 0.0, 1.0)
        fall = 0.5 * (1.0 + ops.cos(ops.multiply(share, 3.141592653589793)))
        factor = self.end + (1.0 - self.end) * fall
        return self.peak * factor * _warmup(step, self.warmup_steps, self.start)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        names = ("peak", "num_steps", "warmup_steps", "start", "end")
        return {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("kvision")
class WarmupSteps(keras.optimizers.schedules.LearningRateSchedule):
    """Rise linearly to the peak, then fall at once at each milestone.

    Args:
        peak: the largest learning rate.
        milestones: steps at which the rate is multiplied by `factor`; none keeps the
            peak to the end.
        warmup_steps: steps from `peak * start` to `peak`.
        start: where the warm-up begins, as a part of the peak.
        factor: of each fall.

    Source: He et al. 2017, Mask R-CNN, section 3.1 (divided by 10 late in training).
    """

    def __init__(
        self,
        peak: float,
        milestones: Sequence[int] = (),
        warmup_steps: int = 0,
        start: float = 0.001,
        factor: float = 0.1,
    ) -> None:
        _check(peak, warmup_steps, min(milestones, default=None))
        self.peak = peak
        self.milestones = list(milestones)
        self.warmup_steps = warmup_steps
        self.start = start
        self.factor = factor

    def __call__(self, step: Tensor) -> Tensor:
        """Return the learning rate of a step, counted from 0."""
        step = ops.cast(step, "float32")
        rate = self.peak * _warmup(step, self.warmup_steps, self.start)
        for milestone in self.milestones:
            rate = ops.where(step >= milestone, rate * self.factor, rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        names = ("peak", "milestones", "warmup_steps", "start", "factor")
        return {name: getattr(self, name) for name in names}


def _warmup(step: Tensor, warmup_steps: int, start: float) -> Tensor:
    """Return the factor of the warm-up: from `start` at step 0 to 1."""
    if not warmup_steps:
        return ops.ones_like(step)
    return start + (1.0 - start) * ops.minimum(step / warmup_steps, 1.0)


def _check(peak: float, warmup_steps: int, first_fall: int | None) -> None:
    if not peak > 0:
        raise ValueError(f"peak must be above 0. Received: peak={peak}")
    if warmup_steps < 0:
        raise ValueError(
            f"warmup_steps must be 0 or more. Received: warmup_steps={warmup_steps}"
        )
    if first_fall is not None and warmup_steps > first_fall:
        raise ValueError(
            f"The warm-up of {warmup_steps} steps must end before the rate falls, at "
            f"step {first_fall}. Shorten it or train longer."
        )
