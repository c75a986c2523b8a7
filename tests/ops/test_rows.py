import math

import keras
import numpy as np
import pytest
from keras import ops

from kvision.ops.rows import by_rows, dense_by_rows, gelu
from kvision.ops.tracing import inference_tracing


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (2, 4, 5, 3)])
def test_by_rows_sees_two_dimensions_and_gives_back_all(shape: tuple[int, ...]) -> None:
    tokens = np.random.default_rng(0).normal(size=shape).astype("float32")
    kernel = np.random.default_rng(1).normal(size=(3, 7)).astype("float32")
    seen = []

    def product(rows: object) -> object:
        seen.append(tuple(rows.shape))
        return ops.matmul(rows, kernel)

    result = ops.convert_to_numpy(by_rows(product, ops.convert_to_tensor(tokens)))
    assert seen == [(math.prod(shape[:-1]), 3)]
    np.testing.assert_allclose(result, tokens @ kernel, rtol=1e-5, atol=1e-6)


def test_by_rows_in_a_graph_of_any_batch_and_length() -> None:
    tf = pytest.importorskip("tensorflow")
    kernel = np.ones((3, 2), "float32")

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3))])
    def run(tokens: object) -> object:
        return by_rows(lambda rows: rows @ kernel, tokens)

    assert run(tf.ones((4, 5, 3))).shape == (4, 5, 2)


def test_gelu_is_exact() -> None:
    values = np.linspace(-6, 6, 241).astype("float32")
    expected = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in values.tolist()]
    result = ops.convert_to_numpy(gelu(ops.convert_to_tensor(values)))
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_a_product_its_bias_and_gelu_become_one_kernel() -> None:
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    kernel, bias = (rng.normal(size=s).astype("float32") for s in ((8, 16), (16,)))

    def dense(rows: object) -> object:
        return gelu(tf.nn.bias_add(rows @ kernel, bias))

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        tokens = v1.placeholder("float32", (2, 4, 8))
        total = tf.reduce_sum(by_rows(dense, tokens))
        options = v1.RunOptions(output_partition_graphs=True)
        metadata = v1.RunMetadata()
        feed = {tokens: np.ones((2, 4, 8), "float32")}
        session.run(total, feed, options=options, run_metadata=metadata)
    nodes = [node.op for graph in metadata.partition_graphs for node in graph.node]
    if not any("Mkl" in node for node in nodes):
        pytest.skip("TensorFlow without oneDNN")
    assert any("FusedMatMul" in node for node in nodes)
    assert "Erf" not in nodes


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_dense_layer_in_training(dtype: str, use_bias: bool) -> None:
    """Values and gradients of Keras' layer; no sum of columns, which is slow."""
    tf = pytest.importorskip("tensorflow")
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(
        7, use_bias=use_bias, dtype=dtype, bias_initializer="ones"
    )
    dense.build((None, 5, 6))
    tokens = tf.random.normal((3, 5, 6))
    up = tf.random.normal((3, 5, 7))

    def run(function):
        with tf.GradientTape() as tape:
            tape.watch(tokens)
            outputs = function(tokens)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * up)
        weights = [weight.value for weight in dense.weights]
        return outputs, *tape.gradient(loss, [tokens, *weights])

    compiled = tf.function(lambda: run(lambda x: dense_by_rows(dense, x, True)))
    kinds = {op.type for op in compiled.get_concrete_function().graph.get_operations()}
    assert "BiasAddGrad" not in kinds
    assert ("Conv2D" in kinds) == (dtype != "float32")
    for one, other in zip(compiled(), run(dense), strict=True):
        assert one.dtype == other.dtype
        scale = float(tf.reduce_max(tf.abs(tf.cast(other, tf.float32))))
        np.testing.assert_allclose(
            tf.cast(one, tf.float32),
            tf.cast(other, tf.float32),
            atol=scale * (1e-5 if dtype == "float32" else 0.02),
        )


def test_the_gradient_of_a_bias_adds_up_in_float32() -> None:
    """32 where the sum is 630, if TensorFlow differentiates the addition."""
    tf = pytest.importorskip("tensorflow")
    dense = keras.layers.Dense(8, dtype="mixed_bfloat16")
    dense.build((None, 4))
    tokens = tf.ones((32, 197, 4), tf.bfloat16)

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            outputs = dense_by_rows(dense, tokens, True)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * 0.1)
        return tape.gradient(loss, dense.bias.value)

    np.testing.assert_allclose(gradient(), 630.4, rtol=0.01)


@pytest.mark.parametrize("training", [False, True])
def test_a_quantized_dense_layer(training: bool) -> None:
    """Its kernel alone does not say what it computes."""
    tf = pytest.importorskip("tensorflow")
    dense = keras.layers.Dense(4, dtype="mixed_bfloat16")
    dense.build((None, 8))
    tokens = tf.random.normal((2, 3, 8))
    dense.quantize("int8")
    with inference_tracing():
        found = tf.function(lambda x: dense_by_rows(dense, x, training))(tokens)
    np.testing.assert_allclose(
        tf.cast(found, tf.float32), tf.cast(dense(tokens), tf.float32), atol=0.05
    )
