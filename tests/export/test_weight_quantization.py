"""Weights in fewer bits: which tensors, and how exact."""

from typing import Any

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from kvision.export.weight_quantization import float16_weights, int8_weights
from tests.export.graph import TYPES, operators, parse

WEIGHTED = ("CONV_2D", "FULLY_CONNECTED")


def tensors(content: bytes, dtype: str) -> dict[str, tuple[np.ndarray, Any]]:
    """Stored tensors of a type: name -> (values, quantisation)."""
    model = parse(content)
    return {
        tensor.name.decode(): (
            np.asarray(model.buffers[tensor.buffer].data, np.uint8)
            .view(dtype)
            .reshape(tensor.shape),
            tensor.quantization,
        )
        for tensor in model.subgraphs[0].tensors
        if TYPES[tensor.type] == dtype.upper()
        and model.buffers[tensor.buffer].data is not None
        and np.size(model.buffers[tensor.buffer].data)
    }


def test_float16_is_the_nearest_of_each_weight(content: bytes) -> None:
    before, after = tensors(content, "float32"), float16_weights(content)
    halves = tensors(after, "float16")
    assert len(halves) >= 10
    for name, (values, _) in halves.items():
        original = before[name.removesuffix("_float16")][0]
        assert original.size >= 1024
        np.testing.assert_array_equal(values, original.astype(np.float16))
    # What is not a weight, anchors among it, is what it was.
    rest = tensors(after, "float32")
    assert rest.keys() == before.keys() - {n.removesuffix("_float16") for n in halves}
    for name, (values, _) in rest.items():
        np.testing.assert_array_equal(values, before[name][0])
    kinds = [each.kind for each in operators(after)]
    assert kinds.count("DEQUANTIZE") == len(halves)


def test_int8_is_within_half_a_step_of_each_weight(content: bytes) -> None:
    before, after = tensors(content, "float32"), int8_weights(content)
    bytes_of = tensors(after, "int8")
    assert len(bytes_of) >= 10
    for name, (codes, quantization) in bytes_of.items():
        original = before[name][0]
        axis = quantization.quantizedDimension
        shape = [-1 if i == axis else 1 for i in range(codes.ndim)]
        scales = np.asarray(quantization.scale).reshape(shape)
        assert scales.size == codes.shape[axis]
        assert not np.any(quantization.zeroPoint)
        assert codes.min() >= -127
        assert (np.abs(codes * scales - original) <= 0.501 * scales).all()
        others = tuple(i for i in range(codes.ndim) if i != axis)
        largest = np.abs(original).max(axis=others)
        # Every channel uses all of its bits.
        assert (np.abs(codes).max(axis=others)[largest > 0] == 127).all()
    rest = tensors(after, "float32")
    for name in before.keys() - bytes_of.keys():
        np.testing.assert_array_equal(rest[name][0], before[name][0])


def test_only_weights_of_layers_are_changed(content: bytes) -> None:
    for each in operators(int8_weights(content)):
        has_bytes = "INT8" in each.inputs
        assert not has_bytes or each.kind in WEIGHTED
        assert each.inputs[:1] != ("INT8",)
        assert each.output != "INT8"


def test_a_channel_of_zeros(content: bytes) -> None:
    model = parse(content)
    (graph,) = model.subgraphs
    convolution = next(
        operator
        for operator in graph.operators
        if graph.tensors[operator.outputs[0]].name.startswith(b"mask_rcnn")
        and model.operatorCodes[operator.opcodeIndex].builtinCode
        == schema.BuiltinOperator.CONV_2D
        and np.prod(graph.tensors[operator.inputs[1]].shape) >= 1024
    )
    weights = graph.tensors[convolution.inputs[1]]
    values = np.array(model.buffers[weights.buffer].data).view(np.float32)
    values.reshape(weights.shape)[3] = 0
    model.buffers[weights.buffer].data = values.view(np.uint8)
    from kvision.export.flatbuffer import write

    codes, quantization = tensors(int8_weights(write(model)), "int8")[
        weights.name.decode()
    ]
    assert not codes[3].any()
    assert np.abs(codes[2]).max() == 127
    assert np.all(np.asarray(quantization.scale) > 0)


@pytest.mark.parametrize("change", [float16_weights, int8_weights])
def test_small_weights_stay(content: bytes, change: Any) -> None:
    after = tensors(change(content), "float32")
    small = [
        name
        for name, (values, _) in tensors(content, "float32").items()
        if values.ndim == 4 and values.size < 1024
    ]
    assert small  # the first convolution has 3 x 3 x 3 x 8
    assert set(small) <= after.keys()
