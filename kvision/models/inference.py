"""A model that only predicts, as fast as this machine can."""

from typing import Any

import keras

from kvision.export.twin import in_precision
from kvision.models.detector import Detector
from kvision.ops.tracing import inference_tracing, require_tensorflow

__all__ = ["for_inference", "freeze"]

_PRECISIONS = ("float32", "bfloat16")


def for_inference(model: keras.Model, precision: str = "float32") -> keras.Model:
    """Return a model of the same weights that predicts faster and cannot be trained.

    What `predict`, `predict_on_batch`, `kv.detect` and `kv.classify` run is traced once
    with the weights as constants: TensorFlow packs them for its kernels, folds what
    follows from them, and makes one kernel of a product or convolution and what comes
    after it. On an accelerator XLA compiles it instead. `model(images)` is the ordinary
    way. Weights that change afterwards do not count.

    Args:
        model: a detector or a classifier of `kvision.models`, or a Functional model.
        precision: "float32", or "bfloat16", in which processors that have instructions
            for it (AMX, AVX512-BF16) are two to four times as fast; others are slower.
            Weights then take half the memory, and results are rounded: a ViT-B/16
            trained on ImageNet is right as often, boxes move by fractions of a pixel to
            some pixels.

    Returns:
        New model of the same class.

    Raises:
        ValueError: for another precision, or if Keras does not run on TensorFlow.
    """
    require_tensorflow("for_inference")
    if precision not in _PRECISIONS:
        raise ValueError(
            f"precision must be one of {', '.join(_PRECISIONS)}. Received: "
            f"{precision!r}"
        )
    # Statistics that cannot change fold into the convolutions before them.
    is_detector = isinstance(model, Detector)
    arguments = {"freeze_batch_norm": True} if is_detector else {}
    twin = in_precision(model, precision, **arguments)
    if twin is model:
        twin = type(model).from_config(model.get_config())
        twin.set_weights(model.get_weights())
    twin.trainable = False
    predict = _compiled(twin)
    # Keras would make its own at the first call; it gives it batches to iterate over.
    twin.predict_function = lambda batches: predict(
        keras.utils.unpack_x_y_sample_weight(next(iter(batches)))[0]
    )
    return twin


def _compiled(model: keras.Model) -> Any:
    """Compile a model's predictions for what the machine has."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return tf.function(
            lambda inputs: model(inputs, training=False), jit_compile=True
        )
    frozen = freeze(model)
    names = sorted(model.output) if isinstance(model.output, dict) else None
    entries = [tensor.name for tensor in model.inputs]

    # No `tf.function` around it: with the batch size known, TensorFlow would not find
    # the forms that it has kernels for.
    def run(inputs: Any) -> Any:
        by_name = inputs if isinstance(inputs, dict) else {entries[0]: inputs}
        values = [
            tf.cast(by_name[name], spec.dtype)
            for name, spec in zip(entries, frozen.inputs, strict=True)
        ]
        outputs = frozen(*values)
        return dict(zip(names, outputs, strict=True)) if names else outputs[0]

    return run


def freeze(model: keras.Model) -> Any:
    """Trace a model's predictions for this processor, its variables as constants.

    Args:
        model: the model, of one output or a dict of them.

    Returns:
        Concrete function of the inputs in the order of `model.inputs`, to a list of
        outputs in the order of their names.
    """
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]

    def run(*inputs: Any) -> list[Any]:
        given = inputs[0]
        if len(specs) > 1:
            given = {
                spec.name: value for spec, value in zip(specs, inputs, strict=True)
            }
        return tf.nest.flatten(model(given, training=False))

    with inference_tracing():
        traced = tf.function(run, input_signature=specs).get_concrete_function()
    return convert_to_constants.convert_variables_to_constants_v2(
        traced, lower_control_flow=False
    )
