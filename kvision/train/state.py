"""Everything of a model in training that the next step depends on, as arrays."""

from typing import Any

import keras
import numpy as np

from kvision.train.checkpoints import CheckpointError

__all__ = ["capture", "restore"]

# What safetensors' numpy form has no name for travels as bits of the same size.
_AS_BITS = {"bfloat16": "uint16"}


def capture(model: keras.Model) -> dict[str, np.ndarray]:
    """Copy weights, metrics, random seeds and the optimizer's variables.

    Args:
        model: a compiled model whose optimizer is built.

    Returns:
        "PART/NUMBER PATH" -> array, in the order of the variables.
    """
    return {
        key: _to_array(variable)
        for part, variables in _parts(model).items()
        for key, variable in _named(part, variables)
    }


def restore(model: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    """Put captured arrays back. All of them must fit, or nothing changes.

    Variables are matched by their order: Keras numbers the names of layers through
    the process, so that they differ from one run to the next.

    Args:
        model: a model built and compiled as the captured one was.
        arrays: what `capture` returned.

    Raises:
        CheckpointError: if the variables differ in number, shape or dtype.
    """
    pairs = []
    for part, variables in _parts(model).items():
        keys = sorted(key for key in arrays if key.startswith(f"{part}/"))
        if len(keys) != len(variables):
            raise CheckpointError(
                f"The checkpoint has {len(keys)} variables of the {part}, this one has "
                f"{len(variables)}: it is of another model or other settings."
            )
        for key, variable in zip(keys, variables, strict=True):
            pairs.append((variable, _fitting(arrays[key], key, variable)))
    for variable, array in pairs:
        variable.assign(array)


def _parts(model: keras.Model) -> dict[str, list[Any]]:
    # The variables of a model are its weights and the states of its seed generators.
    metrics = model.metrics_variables
    known = {id(variable) for variable in metrics}
    return {
        "model": [v for v in model.variables if id(v) not in known],
        "metrics": metrics,
        "optimizer": model.optimizer.variables,
    }


def _named(part: str, variables: list[Any]) -> list[tuple[str, Any]]:
    return [(f"{part}/{i:05d} {v.path}", v) for i, v in enumerate(variables)]


def _to_array(variable: Any) -> np.ndarray:
    array = np.asarray(keras.ops.convert_to_numpy(variable.value))
    bits = _AS_BITS.get(array.dtype.name)
    return array.view(bits) if bits else array


def _fitting(array: np.ndarray, key: str, variable: Any) -> np.ndarray:
    dtype = keras.backend.standardize_dtype(variable.dtype)
    if array.dtype.name != _AS_BITS.get(dtype, dtype):
        raise CheckpointError(
            f"{key!r} of the checkpoint is {array.dtype.name}, {variable.path} is "
            f"{dtype}."
        )
    if array.shape != tuple(variable.shape):
        raise CheckpointError(
            f"{key!r} of the checkpoint has the shape {array.shape}, {variable.path} "
            f"has {tuple(variable.shape)}: it is of another model or other settings."
        )
    return array.view(_numpy_dtype(dtype)) if dtype in _AS_BITS else array


def _numpy_dtype(dtype: str) -> np.dtype:
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, dtype))
