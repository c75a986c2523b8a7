"""Run a function eagerly, as a TensorFlow graph and compiled by XLA."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def to_numpy(values: Any) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_numpy, values)


def in_every_mode(function: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """Return {"eager": ..., "graph": ..., "xla": ...} as numpy arrays."""
    args = keras.tree.map_structure(tf.convert_to_tensor, args)
    return {
        "eager": to_numpy(function(*args)),
        "graph": to_numpy(tf.function(function)(*args)),
        "xla": to_numpy(tf.function(function, jit_compile=True)(*args)),
    }


def assert_modes_agree(
    function: Callable[..., Any], *args: Any, rtol: float = 1e-5, atol: float = 1e-6
) -> Any:
    """Check that the three modes give the same; return what eager mode gives."""
    results = in_every_mode(function, *args)
    for mode in ("graph", "xla"):
        keras.tree.map_structure(
            lambda a, b, m=mode: np.testing.assert_allclose(
                a, b, rtol=rtol, atol=atol, err_msg=f"eager against {m}"
            ),
            results["eager"],
            results[mode],
        )
    return results["eager"]
