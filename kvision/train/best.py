"""Which epoch was the best, and whether there is hope for a better one."""

import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Best"]


@dataclass
class Best:
    """Keeps the best value of one figure.

    Args:
        monitor: name of the figure; a loss is better when it is smaller, anything
            else when it is larger.
        value: the best so far, None before the first.
        epoch: the epoch it is of, counted from 0.
        waited: values since then that were no better.
    """

    monitor: str
    value: float | None = None
    epoch: int | None = None
    waited: int = 0

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        """Take note of an epoch.

        Args:
            epoch: counted from 0.
            logs: figures of the epoch; without the monitored one, or with NaN for it,
                nothing happens.

        Returns:
            Whether it is the best so far.
        """
        value = logs.get(self.monitor, math.nan)
        if math.isnan(value):
            return False
        smaller = "loss" in self.monitor
        if self.value is not None and (
            value >= self.value if smaller else value <= self.value
        ):
            self.waited += 1
            return False
        self.value, self.epoch, self.waited = float(value), epoch, 0
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for a checkpoint."""
        return asdict(self)
