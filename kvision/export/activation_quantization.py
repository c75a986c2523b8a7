"""8-bit activations in a TFLite file: where they cost no accuracy, and only there.

TensorFlow's converter quantises everything it can, and boxes decoded from 8-bit deltas
are off by pixels. Its quantiser proper works on a file: an operator whose tensors carry
ranges of values becomes one of 8 bits. So the ranges are measured here, and are given
to the operators alone that a plan names: of a detector those of backbone, pyramid and
heads, of a classifier the products with weights.

A range is not that from the least to the largest value: where a few values lie far out,
its 256 steps are coarse for all others. It is the one that rounds with the least
squared error.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kvision.export.flatbuffer import operator_name, read, write
from kvision.export.weight_quantization import WEIGHTED

__all__ = ["classifier_plan", "detector_plan", "int8_activations"]

Array = np.ndarray
Model = Any
Run = Callable[..., Iterator[list[Array]]]
# Of an operator: the layer it comes from and the parts of its name within; its name in
# TFLite's schema.
Place = tuple[list[str], str]
# Of all operators of a file -> which become 8-bit.
Plan = Callable[[Sequence[Place]], list[bool]]

# The layers of `kvision.models.rcnn` that hold no weights: geometry and selection, and
# the normalisation, after which the image is rounded once and not at every step.
_FLOAT_LAYERS = {
    "normalization",
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

# Values of each tensor, over all images, that its range is fitted to.
_NUM_VALUES = 100_000
# Of what was measured; the whole comes first, to be taken where none is better.
_SHARES = np.linspace(1, 0.3, 36)


def detector_plan(places: Sequence[Place]) -> list[bool]:
    """Tell which operators of a detector become 8-bit.

    Anchors, proposals, ROIAlign, the last layers of the heads (logits and deltas),
    decoding, softmax, suppression and mask logits stay float32. So does a backbone of
    depthwise convolutions, a small part of the arithmetic: the projections of
    MobileNetV2 blow up what rounding to 256 steps changed before them, and the pyramid
    is off by a sixth.

    Args:
        places: scope and kind of each operator of the file.

    Returns:
        Whether each does.
    """
    float_layers = _FLOAT_LAYERS | {
        scope[0] for scope, kind in places if scope and kind == "DEPTHWISE_CONV_2D"
    }

    def is_chosen(scope: list[str], kind: str) -> bool:
        if not scope or scope[0] in float_layers or tuple(scope[:2]) in _FLOAT_PARTS:
            return False
        return scope[0] not in _HEADS or kind in WEIGHTED

    return [is_chosen(*place) for place in places]


def classifier_plan(places: Sequence[Place]) -> list[bool]:
    """Tell which operators of a classifier become 8-bit.

    Products with weights do: embedding, projections of the attention, MLPs,
    convolutions. Normalisation, softmax, GELU, residual sums and logits stay float32,
    and so do layers that choose tokens, where a step of 8 bits would choose others.

    Args:
        places: scope and kind of each operator of the file.

    Returns:
        Whether each does.
    """
    return [
        bool(scope) and not scope[0].startswith(_FLOAT_PREFIXES) and kind in WEIGHTED
        for scope, kind in places
    ]


def int8_activations(
    content: bytes, inputs: Mapping[str, Array], run: Run, plan: Plan = detector_plan
) -> bytes:
    """Quantise weights and activations of some operators to 8 bits.

    Args:
        content: a float32 TFLite file.
        inputs: "images" (N, H, W, C) uint8, images like those the model will see, and
            what else the file takes: the ranges of all activations are fitted to them.
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
    chosen = {i for i, is_chosen in enumerate(plan(_places(model))) if is_chosen}
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


def _places(model: Model) -> list[Place]:
    (graph,) = model.subgraphs
    return [(_scope(graph, op), operator_name(model, op)) for op in graph.operators]


def _ranges(
    model: Model, chosen: set[int], inputs: Mapping[str, Array], run: Run
) -> dict[int, tuple[float, float]]:
    """Fit a range to the values of each tensor that goes in or out of the chosen."""
    (graph,) = model.subgraphs
    extremes = dict.fromkeys(_measured(graph, chosen), (np.inf, -np.inf))
    samples: dict[int, list[Array]] = {index: [] for index in extremes}
    outputs = graph.outputs
    graph.outputs = [*outputs, *(i for i in extremes if i not in set(outputs))]
    order, watched = [int(i) for i in graph.outputs], write(model)
    graph.outputs = outputs
    number, rng = len(inputs["images"]), np.random.default_rng(0)
    for tensors in run(watched, **inputs):
        for index, values in zip(order, tensors, strict=True):
            if index in extremes:
                low, high = extremes[index]
                extremes[index] = min(low, values.min()), max(high, values.max())
                some = rng.integers(values.size, size=-(-_NUM_VALUES // number))
                samples[index].append(values.ravel()[some])
    flat = [_name(graph, i) for i, (low, high) in extremes.items() if not low < high]
    if flat:
        raise ValueError(
            f"{len(flat)} activations never change over the {number} calibration "
            f"images, first {flat[0]}: are the images blank?"
        )
    return {
        index: _fitted(low, high, np.concatenate(samples[index]))
        for index, (low, high) in extremes.items()
    }


def _measured(graph: Any, chosen: set[int]) -> list[int]:
    """Return the computed float32 tensors that go in or out of the chosen."""
    from tensorflow.lite.python import schema_py_generated as schema

    computed = {int(i) for op in graph.operators for i in op.outputs}
    touched = {
        int(i)
        for position in chosen
        for i in (*graph.operators[position].inputs, *graph.operators[position].outputs)
    }
    return sorted(
        index
        for index in touched & computed
        if graph.tensors[index].type == schema.TensorType.FLOAT32
    )


def _fitted(low: float, high: float, values: Array) -> tuple[float, float]:
    """Shrink a range to the share that rounds values with the least squared error."""
    low, high = min(low, 0.0), max(high, 0.0)  # the quantiser makes 0 one of the steps

    def error(share: float) -> float:
        step = share * (high - low) / 255
        rounded = np.clip(np.round(values / step) * step, share * low, share * high)
        return float(np.mean(np.square(rounded - values)))

    share = min(_SHARES, key=error)
    return share * low, share * high


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
    for operator, may_be in zip(graph.operators, plan(_places(model)), strict=True):
        name = operator_name(model, operator)
        if name in ("QUANTIZE", "DEQUANTIZE"):
            continue
        index = int(operator.outputs[0])
        is_int8 = graph.tensors[index].type == schema.TensorType.INT8
        must_be = name in WEIGHTED and may_be
        if (is_int8 and not may_be) or (must_be and not is_int8):
            wrong.append(f"{name} {_name(graph, index)}")
    if wrong:
        raise ValueError(
            f"TensorFlow's quantiser left the plan in {len(wrong)} operators, first "
            f'{wrong[0]}. Use quantize="dynamic" and report this, please.'
        )
