"""Smaller numbers in a TFLite file: where they cost no accuracy, and only there.

The converter's own quantisation takes everything it can. For a detector that is wrong:
anchors as 8-bit numbers are off by pixels, and so are boxes decoded from 8-bit deltas.
So the float32 file is converted once, and only the weights and the activations of
backbone, pyramid and heads are quantised here.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kvision.export.flatbuffer import operator_name, read, write

__all__ = ["float16_weights", "int8_activations", "int8_weights"]

Array = np.ndarray
Model = Any
Run = Callable[[bytes, Array], Iterator[list[Array]]]

# Op -> the axis of its weights that counts output channels.
_WEIGHTED = {
    "CONV_2D": 0,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 0,
    "TRANSPOSE_CONV": 0,
}
# As in TensorFlow's converter: what is smaller is not worth it.
_MIN_ELEMENTS = 1024

# The layers of `kvision.models.rcnn` that hold no weights: geometry and selection.
_FLOAT_LAYERS = {
    "anchors",
    "proposals",
    "box_roi_align",
    "detections",
    "mask_roi_align",
    "masks",
}
# Logits and deltas themselves: 256 steps are too few to rank scores or place boxes.
_FLOAT_PARTS = {
    ("rpn", "objectness"),
    ("rpn", "deltas"),
    ("box_head", "classes"),
    ("box_head", "deltas"),
}
# Of these layers the convolutions and dense layers are quantised and nothing else.
_HEADS = {"rpn", "box_head", "mask_head"}


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


def int8_activations(content: bytes, images: Array, run: Run) -> bytes:
    """Quantise weights and activations of backbone, pyramid and heads to 8 bits.

    Anchors, proposals, ROIAlign, the last layers of the heads (logits and deltas),
    decoding, softmax, suppression and mask logits stay float32.

    Args:
        content: a float32 TFLite file of a detector.
        images: (N, H, W, C) uint8 array, images like those the model will see: the
            ranges of all activations are taken from them.
        run: function of a TFLite file and images that yields, image by image, the
            values of all outputs of the file's graph in their order.

    Returns:
        The quantised file.

    Raises:
        ValueError: an activation never changes over all images, or the converter
            quantised something else than it was told.
    """
    from tensorflow.lite.python.convert import mlir_quantize

    model = read(content)
    (graph,) = model.subgraphs
    chosen = {
        position
        for position, operator in enumerate(graph.operators)
        if _is_quantized(model, operator)
    }
    ranges = _ranges(model, chosen, images, run)
    _set_ranges(model, ranges)
    others = [op for i, op in enumerate(graph.operators) if i not in chosen]
    kinds = {operator_name(model, graph.operators[i]) for i in chosen}
    quantized = mlir_quantize(
        write(model),
        denylisted_nodes=[_name(graph, index) for op in others for index in op.outputs],
        # By name the converter does not find operators of several outputs.
        denylisted_ops=sorted({operator_name(model, op) for op in others} - kinds),
    )
    _check_quantized(quantized)
    return bytes(quantized)


def _weights(model: Model) -> dict[int, int]:
    """Find the stored float32 weights of layers: tensor -> axis of the channels."""
    from tensorflow.lite.python import schema_py_generated as schema

    (graph,) = model.subgraphs
    found = {}
    for operator in graph.operators:
        axis = _WEIGHTED.get(operator_name(model, operator))
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


def _name(graph: Any, index: int) -> str:
    return graph.tensors[index].name.decode()


def _scope(graph: Any, operator: Any) -> list[str]:
    """Return the layer an operator comes from and the parts of its name within.

    Names are paths that Keras makes when it traces: model_1/layer_1/sublayer_1/Op.
    """
    path = _name(graph, operator.outputs[0]).split(";")[0].split("/")
    return [re.sub(r"_\d+$", "", part) for part in path[1:]]


def _is_quantized(model: Model, operator: Any) -> bool:
    scope = _scope(model.subgraphs[0], operator)
    if not scope or scope[0] in _FLOAT_LAYERS or tuple(scope[:2]) in _FLOAT_PARTS:
        return False
    return scope[0] not in _HEADS or operator_name(model, operator) in _WEIGHTED


def _ranges(
    model: Model, chosen: set[int], images: Array, run: Run
) -> dict[int, tuple[float, float]]:
    """Measure the least and largest value of what goes in and out of the chosen."""
    from tensorflow.lite.python import schema_py_generated as schema

    (graph,) = model.subgraphs
    computed = {int(i) for op in graph.operators for i in op.outputs}
    touched = {
        int(i)
        for position in chosen
        for i in (*graph.operators[position].inputs, *graph.operators[position].outputs)
    }
    indices = sorted(
        index
        for index in touched & computed
        if graph.tensors[index].type == schema.TensorType.FLOAT32
    )
    outputs = graph.outputs
    graph.outputs = [*outputs, *(i for i in indices if i not in set(outputs))]
    order, watched = [int(i) for i in graph.outputs], write(model)
    graph.outputs = outputs
    ranges = {index: (np.inf, -np.inf) for index in indices}
    for values in run(watched, images):
        for index, value in zip(order, values, strict=True):
            if index in ranges:
                low, high = ranges[index]
                ranges[index] = min(low, value.min()), max(high, value.max())
    flat = [_name(graph, i) for i, (low, high) in ranges.items() if not low < high]
    if flat:
        raise ValueError(
            f"{len(flat)} activations never change over the {len(images)} calibration "
            f"images, first {flat[0]}: are the images blank?"
        )
    return ranges


def _set_ranges(model: Model, ranges: dict[int, tuple[float, float]]) -> None:
    from tensorflow.lite.python import schema_py_generated as schema

    for index, (low, high) in ranges.items():
        quantization = schema.QuantizationParametersT()
        quantization.min = np.array([low], np.float32)
        quantization.max = np.array([high], np.float32)
        model.subgraphs[0].tensors[index].quantization = quantization


def _check_quantized(content: bytes) -> None:
    """Refuse a file where the border between 8 bits and float32 lies elsewhere."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = read(content)
    (graph,) = model.subgraphs
    wrong = []
    for operator in graph.operators:
        name = operator_name(model, operator)
        if name in ("QUANTIZE", "DEQUANTIZE"):
            continue
        index = int(operator.outputs[0])
        is_int8 = graph.tensors[index].type == schema.TensorType.INT8
        must_be = name in _WEIGHTED and _is_quantized(model, operator)
        may_be = _is_quantized(model, operator)
        if (is_int8 and not may_be) or (must_be and not is_int8):
            wrong.append(f"{name} {_name(graph, index)}")
    if wrong:
        raise ValueError(
            f"TensorFlow's quantiser left the plan in {len(wrong)} operators, first "
            f"{wrong[0]}. Use quantize=\"dynamic\" and report this, please."
        )
