"""8-bit activations in a TFLite file: where they cost no accuracy, and only there.

TensorFlow's converter quantises everything it can, and boxes decoded from 8-bit deltas
are off by pixels. Its quantiser proper works on a file: an operator whose tensors carry
ranges of values becomes one of 8 bits. So the ranges are measured here, and are given
to the operators alone that a plan names: of a detector those of backbone, pyramid and
heads, of a classifier the products with weights.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from kvision.export.flatbuffer import operator_name, read, write
from kvision.export.weight_quantization import WEIGHTED

__all__ = ["classifier_plan", "detector_plan", "int8_activations"]

Array = np.ndarray
Model = Any
Run = Callable[..., Iterator[list[Array]]]
# Scope (the layer and the parts of the name within) and kind of an operator -> 8 bits?
Plan = Callable[[list[str], str], bool]

# The layers of `kvision.models.rcnn` that hold no weights: geometry and selection.
_FLOAT_LAYERS = {
    "anchors",
    "proposals",
    "box_roi_align",
    "detections",
    "mask_roi_align",
    "masks",
    "pixel_boxes",
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
# Of a classifier: its heads ("head", "head_dist"), and what chooses tokens.
_FLOAT_PREFIXES = ("head", "token_scorer", "token_pruning", "detail_scores")


def detector_plan(scope: list[str], kind: str) -> bool:
    """Tell whether an operator of a detector becomes 8-bit.

    Anchors, proposals, ROIAlign, the last layers of the heads (logits and deltas),
    decoding, softmax, suppression and mask logits stay float32.

    Args:
        scope: the layer it comes from and the parts of its name within.
        kind: its name in TFLite's schema.

    Returns:
        Whether it does.
    """
    if not scope or scope[0] in _FLOAT_LAYERS or tuple(scope[:2]) in _FLOAT_PARTS:
        return False
    return scope[0] not in _HEADS or kind in WEIGHTED


def classifier_plan(scope: list[str], kind: str) -> bool:
    """Tell whether an operator of a classifier becomes 8-bit.

    Products with weights do: embedding, projections of the attention, MLPs,
    convolutions. Normalisation, softmax, GELU, residual sums and logits stay float32,
    and so do layers that choose tokens, where a step of 8 bits would choose others.

    Args:
        scope: the layer it comes from and the parts of its name within.
        kind: its name in TFLite's schema.

    Returns:
        Whether it does.
    """
    if not scope or scope[0].startswith(_FLOAT_PREFIXES):
        return False
    return kind in WEIGHTED


def int8_activations(
    content: bytes, inputs: Mapping[str, Array], run: Run, plan: Plan = detector_plan
) -> bytes:
    """Quantise weights and activations of some operators to 8 bits.

    Args:
        content: a float32 TFLite file.
        inputs: "images" (N, H, W, C) uint8, images like those the model will see, and
            what else the file takes: the ranges of all activations are taken from them.
        run: function of a TFLite file and such inputs that yields, image by image, the
            values of all outputs of the file's graph in their order.
        plan: which operators.

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
        if _is_quantized(model, operator, plan)
    }
    ranges = _ranges(model, chosen, inputs, run)
    _set_ranges(model, ranges)
    others = [op for i, op in enumerate(graph.operators) if i not in chosen]
    kinds = {operator_name(model, graph.operators[i]) for i in chosen}
    quantized = mlir_quantize(
        write(model),
        denylisted_nodes=[_name(graph, index) for op in others for index in op.outputs],
        # By name the converter does not find operators of several outputs.
        denylisted_ops=sorted({operator_name(model, op) for op in others} - kinds),
    )
    _check_quantized(quantized, plan)
    return bytes(quantized)


def _name(graph: Any, index: int) -> str:
    return graph.tensors[index].name.decode()


def _scope(graph: Any, operator: Any) -> list[str]:
    """Return the layer an operator comes from and the parts of its name within.

    Names are paths that Keras makes when it traces: model_1/layer_1/sublayer_1/Op.
    """
    path = _name(graph, operator.outputs[0]).split(";")[0].split("/")
    return [re.sub(r"_\d+$", "", part) for part in path[1:]]


def _is_quantized(model: Model, operator: Any, plan: Plan) -> bool:
    return plan(_scope(model.subgraphs[0], operator), operator_name(model, operator))


def _ranges(
    model: Model, chosen: set[int], inputs: Mapping[str, Array], run: Run
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
    ranges = dict.fromkeys(indices, (np.inf, -np.inf))
    for values in run(watched, **inputs):
        for index, value in zip(order, values, strict=True):
            if index in ranges:
                low, high = ranges[index]
                ranges[index] = min(low, value.min()), max(high, value.max())
    flat = [_name(graph, i) for i, (low, high) in ranges.items() if not low < high]
    if flat:
        raise ValueError(
            f"{len(flat)} activations never change over the {len(inputs['images'])} "
            f"calibration images, first {flat[0]}: are the images blank?"
        )
    return ranges


def _set_ranges(model: Model, ranges: dict[int, tuple[float, float]]) -> None:
    from tensorflow.lite.python import schema_py_generated as schema

    for index, (low, high) in ranges.items():
        quantization = schema.QuantizationParametersT()
        quantization.min = np.array([low], np.float32)
        quantization.max = np.array([high], np.float32)
        model.subgraphs[0].tensors[index].quantization = quantization


def _check_quantized(content: bytes, plan: Plan) -> None:
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
        may_be = _is_quantized(model, operator, plan)
        must_be = name in WEIGHTED and may_be
        if (is_int8 and not may_be) or (must_be and not is_int8):
            wrong.append(f"{name} {_name(graph, index)}")
    if wrong:
        raise ValueError(
            f"TensorFlow's quantiser left the plan in {len(wrong)} operators, first "
            f'{wrong[0]}. Use quantize="dynamic" and report this, please.'
        )
