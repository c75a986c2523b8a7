import math

import numpy as np
import pytest
from keras import ops

from kvision.ops.rows import by_rows, gelu


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
