"""Moving averages of the weights, in the model while it is scored and saved."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

__all__ = ["averaged_weights"]


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Put the optimizer's moving averages into the model, and take them out again.

    Does nothing where the optimizer keeps none, and before the first step, when the
    averages are still empty. (`keras.callbacks.SwapEMAWeights` does the same between
    fixed hooks of `fit`, and leaves the averages in where one of them is not reached.)

    Args:
        model: a compiled model.

    Yields:
        Nothing.
    """
    pairs = _pairs(model.optimizer)
    _swap(pairs)
    try:
        yield
    finally:
        _swap(pairs)


def _pairs(optimizer: Any) -> list[tuple[Any, Any]]:
    """Return (variable, its average) for each trained variable."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not getattr(optimizer, "use_ema", False) or int(optimizer.iterations) == 0:
        return []
    pairs = zip(
        optimizer._trainable_variables,
        optimizer._model_variables_moving_average,
        strict=True,
    )
    return [pair for pair in pairs if pair[1] is not None]


def _swap(pairs: list[tuple[Any, Any]]) -> None:
    for variable, average in pairs:
        value = keras.ops.copy(variable.value)
        variable.assign(average.value)
        average.assign(value)
