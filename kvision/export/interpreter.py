"""Running TFLite files, to calibrate them and to compare them with their model."""

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["all_outputs", "runner"]

Array = np.ndarray


def runner(content: bytes) -> Callable[[Array], dict[str, Array]]:
    """Load a TFLite file with one signature.

    Args:
        content: the file.

    Returns:
        Function from images (B, H, W, C) uint8 to the dict of outputs; images are run
        one by one.
    """
    run = _interpreter(content).get_signature_runner()

    def run_all(images: Array) -> dict[str, Array]:
        parts = [run(images=image[None]) for image in np.asarray(images)]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    return run_all


def all_outputs(content: bytes, images: Array) -> Iterator[list[Array]]:
    """Run a TFLite file image by image.

    Args:
        content: the file.
        images: (N, H, W, C) uint8 array.

    Yields:
        The values of all outputs of the graph, of its signature or not, in their order.
    """
    interpreter = _interpreter(content)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    outputs = [detail["index"] for detail in interpreter.get_output_details()]
    for image in images:
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        yield [interpreter.get_tensor(index) for index in outputs]


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
