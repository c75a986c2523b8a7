"""Files of seeded weights, as another project would have written them."""

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

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
    tensors = {}
    for line in str(state_dict).splitlines():
        name, _, shape = line.partition(" ")
        tensors[name] = weights_for(name, ast.literal_eval(shape))
    save_file(tensors, path)
    return path
