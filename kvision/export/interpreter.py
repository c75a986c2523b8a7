"""Running TFLite files, to calibrate them and to compare them with their model."""

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["all_outputs", "runner"]

Array = np.ndarray


def runner(content: bytes) -> Callable[..., dict[str, Array]]:
    """Load a TFLite file with one signature.

    Args:
        content: the file.

    Returns:
        Function from images (B, H, W, C) uint8, and further inputs by name, to the dict
        of outputs; images are run one by one.
    """
    run = _interpreter(content).get_signature_runner()

    def run_all(images: Array, **others: Array) -> dict[str, Array]:
        inputs = {"images": images, **others}
        parts = [run(**each) for each in _one_by_one(inputs)]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    return run_all


def all_outputs(
    content: bytes, images: Array, **others: Array
) -> Iterator[list[Array]]:
    """Run a TFLite file image by image.

    Args:
        content: the file.
        images: (N, H, W, C) uint8 array.
        **others: further inputs by name, N rows each.

    Yields:
        The values of all outputs of the graph, of its signature or not, in their order.
    """
    interpreter = _interpreter(content)
    interpreter.allocate_tensors()
    entries = interpreter.get_signature_runner().get_input_details()
    outputs = [detail["index"] for detail in interpreter.get_output_details()]
    for inputs in _one_by_one({"images": images, **others}):
        for name, value in inputs.items():
            interpreter.set_tensor(entries[name]["index"], value)
        interpreter.invoke()
        yield [interpreter.get_tensor(index) for index in outputs]


def _one_by_one(inputs: dict[str, Array]) -> Iterator[dict[str, Array]]:
    arrays = {name: np.asarray(values) for name, values in inputs.items()}
    for row in range(len(arrays["images"])):
        yield {name: values[row : row + 1] for name, values in arrays.items()}


def _interpreter(content: bytes) -> Any:
    """Prefer the runtime that phones have; TensorFlow's own is on its way out."""
    threads = os.cpu_count()
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces its end
            return tf.lite.Interpreter(model_content=content, num_threads=threads)
    return Interpreter(model_content=content, num_threads=threads)
