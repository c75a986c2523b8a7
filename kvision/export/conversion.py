"""From a function of Keras layers to a float32 TFLite file of builtin ops."""

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from kvision.export.entries import entries
from kvision.ops.tracing import tflite_tracing

__all__ = ["convert", "convert_function", "quiet"]


def convert(model: Any) -> bytes:
    """Convert a model to a float32 TFLite file.

    Args:
        model: a detector with the dtype policy "float32", or a `Classifier` of such a
            model.

    Returns:
        The file, without description.

    Raises:
        ValueError: an op has no TFLite form; the message names it and its layer.
    """
    return convert_function(
        lambda *inputs: dict(model(*inputs, training=False)),
        *entries(model, batch_size=1).values(),
    )


def convert_function(function: Any, *specs: Any) -> bytes:
    """Convert a function of tensors to a float32 TFLite file with one signature.

    Args:
        function: tensors -> dict of tensors.
        *specs: `tf.TensorSpec` of each tensor, with a name.

    Returns:
        The file.

    Raises:
        ValueError: an op has no TFLite form.
    """
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(
        lambda **inputs: function(*(inputs[each.name] for each in specs))
    )
    with tflite_tracing():
        signature = module.serve.get_concrete_function(**{s.name: s for s in specs})
    # Saved without anything of Keras the converter makes constants of them. (Constants
    # made here would take thirty times their size on the way.)
    module.read = list(signature.graph.variables)
    with tempfile.TemporaryDirectory() as folder, quiet():
        tf.saved_model.save(module, folder, signature, _without_gradients())
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        try:
            return bytes(converter.convert())
        except Exception as error:  # the converter has no class of its own for it
            raise ValueError(_explain(str(error), signature.graph)) from None


def _without_gradients() -> Any:
    import tensorflow as tf

    return tf.saved_model.SaveOptions(experimental_custom_gradients=False)


def _explain(message: str, graph: Any) -> str:
    """Say which ops of which layers the converter refused."""
    names = re.findall(r"^(?:TF Select|Custom) ops: (.*)$", message, re.MULTILINE)
    ops = sorted({op.strip() for line in names for op in line.split(",")})
    if not ops:
        return f"TensorFlow's converter failed: {message}"
    places = [
        f"{op} in " + ", ".join(sorted(_layers_with(graph, op))[:5]) for op in ops
    ]
    return (
        "These ops have no TFLite form: " + "; ".join(places) + ". Replace them by ops "
        "of static shape with a builtin form; kvision.ops.tracing tells a layer when "
        "it is traced for TFLite."
    )


def _layers_with(graph: Any, op: str) -> set[str]:
    paths = [o.name for o in graph.get_operations() if o.type == op]
    return {path.rpartition("/")[0] or path for path in paths}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what the converter's C++ code prints: whole graphs on an error.

    Yields:
        Nothing.
    """
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        logger.setLevel(level)
