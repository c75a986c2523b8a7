"""A model that only predicts, as fast as this machine can."""

from typing import Any

import keras

from kvision.models.detector import Detector
from kvision.ops.tracing import require_tensorflow

__all__ = ["for_inference", "traced"]


def for_inference(model: keras.Model, precision: str = "float32") -> keras.Model:
    """Return a model of the same weights that predicts faster and is not for training.

    What `predict`, `predict_on_batch`, `kv.detect` and `kv.classify` run is traced in
    the forms of which TensorFlow makes one kernel: a normalisation, a product or a
    convolution with what comes after it; batch normalisation is folded into the
    convolutions. On an accelerator XLA compiles it instead. `model(images)` is the
    ordinary way.

    Args:
        model: a detector or a classifier of `kvision.models`, or a Functional model.
        precision: "float32", or "bfloat16", in which processors that have instructions
            for it (AMX, AVX512-BF16) are two to four times as fast; others are slower.
            Weights then take half the memory, and results are rounded: a ViT-B/16
            trained on ImageNet is right as often, boxes move by fractions of a pixel to
            some pixels.

    Returns:
        New model of the same class. A classifier of this precision already, without
        batch normalisation, shares its weights with it.

    Raises:
        ValueError: for another precision, or if Keras does not run on TensorFlow.
    """
    # Exports, and what they need, are not part of `import kvision`.
    from kvision.export.fast import fast_twin

    require_tensorflow("for_inference")
    twin = fast_twin(model, precision)
    if twin is not model:
        twin.trainable = False
    elif isinstance(model, Detector):
        twin = model.rebuilt()
    else:
        twin = keras.Model(model.input, model.output, name=model.name)
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
    function, names = traced(model), [tensor.name for tensor in model.inputs]

    # Called as it is, whatever the batch: with the number of images known, TensorFlow
    # would not find the forms that it has kernels for.
    def run(inputs: Any) -> Any:
        by_name = inputs if isinstance(inputs, dict) else {names[0]: inputs}
        return function(
            *(
                tf.cast(by_name[name], tensor.dtype)
                for name, tensor in zip(names, model.inputs, strict=True)
            )
        )

    return run


def traced(model: keras.Model) -> Any:
    """Trace the predictions of any number of images for this processor.

    Args:
        model: the model.

    Returns:
        Concrete function of its inputs, in their order.
    """
    import tensorflow as tf

    from kvision.export import fast

    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]

    def run(*inputs: Any) -> Any:
        given = inputs[0]
        if len(specs) > 1:
            given = {
                spec.name: value for spec, value in zip(specs, inputs, strict=True)
            }
        return model(given, training=False)

    return fast.traced(run, specs, is_saved=False)
