"""The twin of a model whose predictions are fastest on processors with oneDNN."""

import gc
from typing import Any

import keras

from kvision.export.twin import in_precision, with_weights_of
from kvision.ops.tracing import inference_tracing

__all__ = ["PRECISIONS", "fast_twin", "traced"]

PRECISIONS = ("float32", "bfloat16")

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def fast_twin(model: Any, precision: str) -> Any:
    """Return a model in a precision, batch normalisation folded into convolutions.

    Args:
        model: a detector of `kvision.models`, or a Functional model.
        precision: one of `PRECISIONS`.

    Returns:
        New model of the same class, or the same where nothing would change.

    Raises:
        ValueError: for another precision, or one that quantized layers cannot have.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision must be one of {', '.join(PRECISIONS)}. Received: {precision!r}"
        )
    for layer in model._flatten_layers():
        if getattr(layer, "quantization_mode", None) and precision != "float32":
            raise ValueError(
                "precision must be 'float32' for a model with quantized layers. "
                f"Received: {precision!r} and the layer {layer.name!r}, quantized to "
                f"{layer.quantization_mode}: take the model as it was before that"
            )
    if not any(_normalizes(layer) for layer in model._flatten_layers()):
        return in_precision(model, precision)
    # Folded before weights are rounded, and again where the layers are others.
    can_freeze = "freeze_batch_norm" in model.get_config()
    arguments = {"freeze_batch_norm": True} if can_freeze else {}
    whole = in_precision(model, "float32", **arguments)
    if whole is model:
        whole = with_weights_of(type(model).from_config(model.get_config()), model)
    _fold_batch_norms(whole)
    twin = in_precision(whole, precision)
    if twin is not whole:
        _fold_batch_norms(twin)
        # Its layers refer to each other: it would stay until Python looks for such.
        del whole
        gc.collect()
    return twin


def _normalizes(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization) or _can_fold(layer)


def _can_fold(layer: Any) -> bool:
    """Tell whether this is a `kvision.layers.FrozenBatchNormalization`."""
    return hasattr(layer, "fold_into")


def _fold_batch_norms(model: Any) -> None:
    """Fold statistics that cannot change into the convolutions before them."""
    for layer in model._flatten_layers():
        if not _can_fold(layer):
            continue
        before = layer.input._keras_history.operation
        # Not a subclass, which may do something with its kernel.
        if (
            type(before) in _CONVOLUTIONS
            and before.activation is keras.activations.linear
            and len(before._outbound_nodes) == 1
        ):
            layer.fold_into(before)


def traced(function: Any, specs: Any, is_saved: bool = True) -> Any:
    """Trace predictions in the forms for which TensorFlow has one kernel, of oneDNN.

    Args:
        function: of tensors, by position or by name.
        specs: list or dict of `tf.TensorSpec`, the number of images not given.
        is_saved: whether the function may run in another process.

    Returns:
        Concrete function.
    """
    import tensorflow as tf

    function = tf.function(function, autograph=False)
    with inference_tracing(is_saved):
        if isinstance(specs, dict):
            return function.get_concrete_function(**specs)
        return function.get_concrete_function(*specs)
