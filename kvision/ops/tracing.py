"""Which kind of graph is being traced: one that must compile ahead, or any."""

import keras

__all__ = ["static_shapes_required"]


def static_shapes_required() -> bool:
    """Tell whether the ops traced now must have static shapes and XLA kernels.

    True inside `tf.function(jit_compile=True)`, from which TFLite exports are traced
    too, and on other Keras backends. False in eager mode and in a plain TensorFlow
    graph, where ops of data-dependent size and TensorFlow's fused kernels are allowed
    and several times faster on a CPU.

    Returns:
        Whether only static shapes and portable ops may be used.
    """
    if keras.backend.backend() != "tensorflow":
        return True
    import tensorflow as tf

    # TensorFlow has no public question for this; it asks itself the same way before
    # it chooses between while-loop formulations.
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    return bool(control_flow_util.GraphOrParentsInXlaContext(graph))
