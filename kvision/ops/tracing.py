"""What is being traced: by which backend, for which compiler, of which batch."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras

__all__ = [
    "inference_tracing",
    "not_empty",
    "require_tensorflow",
    "static_shapes_required",
    "tflite_tracing",
    "tracing_for_inference",
    "tracing_for_tflite",
    "tracing_for_this_process",
]

_FOR_INFERENCE = ContextVar("tracing_for_inference", default=False)
_FOR_THIS_PROCESS = ContextVar("tracing_for_this_process", default=False)
_FOR_TFLITE = ContextVar("tracing_for_tflite", default=False)


def require_tensorflow(task: str) -> None:
    """Refuse a task that only TensorFlow can do.

    Args:
        task: what is asked for, as the beginning of a sentence.

    Raises:
        ValueError: Keras runs on another backend.
    """
    if (backend := keras.backend.backend()) != "tensorflow":
        raise ValueError(
            f"{task} needs Keras on TensorFlow: set KERAS_BACKEND=tensorflow before "
            f"Keras is imported. It runs on {backend!r}, where a detector computes "
            "detections only"
        )


def not_empty(batch: Any, message: str) -> Any:
    """Refuse a batch without images before it gets into a model.

    XLA's suppression has crashed the process on it, fused convolutions of oneDNN give
    it a wrong shape on which the next one fails, and there is no best match among none.

    Args:
        batch: TensorFlow tensors (B, ...), in any nesting.
        message: of the error.

    Returns:
        The same tensors, to be used instead of the given ones.

    Raises:
        tf.errors.InvalidArgumentError: when a graph meets such a batch.
    """
    import tensorflow as tf

    number = tf.shape(tf.nest.flatten(batch)[0])[0]
    check = tf.debugging.assert_positive(number, message=message)
    with tf.control_dependencies([check] if check is not None else []):
        return tf.nest.map_structure(tf.identity, batch)


def static_shapes_required() -> bool:
    """Tell whether the ops traced now must have static shapes and portable kernels.

    True inside `tf.function(jit_compile=True)`, inside `tflite_tracing`, and on other
    Keras backends. False in eager mode and in a plain TensorFlow graph, where ops of
    data-dependent size and TensorFlow's fused kernels are allowed and several times
    faster on a CPU.

    Returns:
        Whether only static shapes and portable ops may be used.
    """
    if keras.backend.backend() != "tensorflow" or tracing_for_tflite():
        return True
    import tensorflow as tf

    # TensorFlow has no public question for this; it asks itself the same way before
    # it chooses between while-loop formulations.
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    return bool(control_flow_util.GraphOrParentsInXlaContext(graph))


@contextlib.contextmanager
def tflite_tracing() -> Iterator[None]:
    """Mark what is traced inside the block as meant for conversion to TFLite."""
    token = _FOR_TFLITE.set(True)
    try:
        yield
    finally:
        _FOR_TFLITE.reset(token)


def tracing_for_tflite() -> bool:
    """Tell whether a block of `tflite_tracing` is open.

    Returns:
        Whether the graph traced now will become a TFLite file.
    """
    return _FOR_TFLITE.get()


@contextlib.contextmanager
def inference_tracing(is_saved: bool = True) -> Iterator[None]:
    """Mark what is traced inside the block as a graph for predictions on this CPU.

    Layers then use the forms for which TensorFlow has one kernel, of oneDNN. These are
    not differentiated, and other compilers need not know them.

    Args:
        is_saved: whether the graph may run in another process, which may be one that
            has no XLA to compile parts of it.
    """
    tokens = _FOR_INFERENCE.set(True), _FOR_THIS_PROCESS.set(not is_saved)
    try:
        yield
    finally:
        _FOR_INFERENCE.reset(tokens[0])
        _FOR_THIS_PROCESS.reset(tokens[1])


def tracing_for_inference() -> bool:
    """Tell whether a block of `inference_tracing` is open.

    Returns:
        Whether the graph traced now is for predictions on this CPU alone.
    """
    return _FOR_INFERENCE.get()


def tracing_for_this_process() -> bool:
    """Tell whether a block of `inference_tracing(is_saved=False)` is open.

    Returns:
        Whether the graph traced now is for predictions on this CPU in this process.
    """
    return _FOR_THIS_PROCESS.get()
