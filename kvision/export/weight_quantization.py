"""Weights of a TFLite file in fewer bits.

TensorFlow's converter takes every constant it can. For a detector that is wrong:
anchors as 8-bit numbers are off by pixels. So the float32 file is converted once, and
only the weights of layers are rewritten here.
"""

from typing import Any

import numpy as np

from kvision.export.flatbuffer import operator_name, read, write

__all__ = ["WEIGHTED", "float16_weights", "int8_weights"]

Array = np.ndarray
Model = Any

# Op -> the axis of its weights that counts output channels.
WEIGHTED = {
    "CONV_2D": 0,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 0,
    "TRANSPOSE_CONV": 0,
}
# As in TensorFlow's converter: what is smaller is not worth it.
_MIN_ELEMENTS = 1024


def float16_weights(content: bytes) -> bytes:
    """Store weights as float16; arithmetic stays float32.

    Args:
        content: a float32 TFLite file.

    Returns:
        A file of half the size.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    model = read(content)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 2  # the first that reads float16
    model.operatorCodes.append(code)
    (graph,) = model.subgraphs
    dequantized = []
    for index in sorted(_weights(model)):
        values = _values(model, index)
        half = _copy(schema.TensorT(), graph.tensors[index])
        half.name = graph.tensors[index].name + b"_float16"
        half.type = schema.TensorType.FLOAT16
        half.buffer = _add_buffer(model, values.astype(np.float16))
        graph.tensors[index].buffer = 0  # the empty one: computed, not stored
        operator = schema.OperatorT()
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs, operator.outputs = [len(graph.tensors)], [index]
        graph.tensors.append(half)
        dequantized.append(operator)
    graph.operators = dequantized + graph.operators
    _empty_unused_buffers(model)
    return write(model)


def int8_weights(content: bytes) -> bytes:
    """Store weights as 8-bit numbers with a scale a channel ("dynamic range").

    The runtime quantises the inputs of these layers as it goes; all else is float32.

    Args:
        content: a float32 TFLite file.

    Returns:
        A file of about a quarter of the size.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    model = read(content)
    (graph,) = model.subgraphs
    weights = _weights(model)
    for index, axis in weights.items():
        tensor = graph.tensors[index]
        codes, scales = _quantized(_values(model, index), axis)
        tensor.type = schema.TensorType.INT8
        tensor.buffer = _add_buffer(model, codes)
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = scales
        tensor.quantization.zeroPoint = np.zeros(len(scales), np.int64)
        tensor.quantization.quantizedDimension = axis
    for operator in graph.operators:
        is_dense = operator_name(model, operator) == "FULLY_CONNECTED"
        if is_dense and operator.inputs[1] in weights:
            operator.builtinOptions.asymmetricQuantizeInputs = True
    _empty_unused_buffers(model)
    return write(model)


def _weights(model: Model) -> dict[int, int]:
    """Find the stored float32 weights of layers: tensor -> axis of the channels."""
    from tensorflow.lite.python import schema_py_generated as schema

    (graph,) = model.subgraphs
    found = {}
    for operator in graph.operators:
        axis = WEIGHTED.get(operator_name(model, operator))
        if axis is None:
            continue
        index = int(operator.inputs[1])
        tensor = graph.tensors[index]
        is_float = tensor.type == schema.TensorType.FLOAT32
        is_stored = model.buffers[tensor.buffer].data is not None
        if is_float and is_stored and np.prod(tensor.shape) >= _MIN_ELEMENTS:
            found[index] = axis
    return found


def _values(model: Model, index: int) -> Array:
    tensor = model.subgraphs[0].tensors[index]
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    return data.view(np.float32).reshape(tensor.shape)


def _quantized(values: Array, axis: int) -> tuple[Array, Array]:
    """Return int8 codes in -127..127 and the scale of each channel."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = np.maximum(largest, np.finfo(np.float32).tiny * 128) / 127
    codes = np.clip(np.rint(values / scales), -127, 127).astype(np.int8)
    return codes, scales.reshape(-1).astype(np.float32)


def _add_buffer(model: Model, values: Array) -> int:
    from tensorflow.lite.python import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _empty_unused_buffers(model: Model) -> None:
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def _copy(target: Any, source: Any) -> Any:
    vars(target).update(vars(source))
    return target
