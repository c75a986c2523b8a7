"""Files of seeded weights, as another project would have written them."""

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

Tensors = dict[str, np.ndarray]
WeightsFor = Callable[[str, tuple[int, ...]], np.ndarray]


def write_file(path: Path, state_dict: np.ndarray, weights_for: WeightsFor) -> Path:
    """Write seeded weights.

    Args:
        path: the safetensors file.
        state_dict: a name and a shape in each line, as recorders keep them.
        weights_for: name and shape to tensor.

    Returns:
        The path.
    """
    save_file(tensors_of(state_dict, weights_for), path)
    return path


def tensors_of(state_dict: np.ndarray, weights_for: WeightsFor) -> Tensors:
    """Make the tensors of such a file."""
    rows = [line.partition(" ") for line in str(state_dict).splitlines()]
    return {name: weights_for(name, ast.literal_eval(shape)) for name, _, shape in rows}
