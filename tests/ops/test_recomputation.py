"""What recomputation costs in a graph that XLA does not compile."""

import numpy as np
import pytest
import tensorflow as tf

from kvision.ops.recomputation import recomputed

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_nested_inputs_results_and_variables(jit_compile: bool) -> None:
    weight = tf.Variable(tf.constant([[2.0], [-1.0], [0.5], [3.0]]))

    def function(x: tf.Tensor, given: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        product = tf.sinh(x) @ weight
        return {"a": product * given["scale"], "b": tf.square(x)}

    @tf.function(jit_compile=jit_compile)
    def gradients(run):
        x, scale = tf.constant(X), tf.constant([[1.0], [2.0], [3.0]])
        with tf.GradientTape() as tape:
            tape.watch((x, scale))
            results = run(x, {"scale": scale})
            total = tf.reduce_sum(results["a"] ** 2) + tf.reduce_sum(results["b"])
        return tape.gradient(total, [x, scale, weight])

    expected = gradients(function)
    for one, other in zip(gradients(recomputed(function, [])), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_no_pass_over_memory_to_wait() -> None:
    """`tf.recompute_grad` adds to each input: 5 % of a ViT-Ti/16's step."""

    @tf.function
    def gradient(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(recomputed(tf.sinh, [])(x))
        return tape.gradient(total, x)

    graph = gradient.get_concrete_function(tf.TensorSpec((3, 4))).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("Sinh") == 2
    assert not {"Add", "AddV2", "Max"} & set(kinds)
    (again,) = [op for op in graph.get_operations() if op.type == "Sinh"][1:]
    assert again.inputs[0].op.control_inputs  # waits for what comes from behind
