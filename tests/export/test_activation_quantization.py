"""int8 activations: which parts are of 8 bits, and where the ranges come from."""

from collections import defaultdict

import numpy as np
import pytest

from kvision.export import Parity, interpreter
from kvision.export.activation_quantization import detector_plan, int8_activations
from kvision.export.conversion import quiet
from tests.export.graph import Operator, operators, parse


def layer(operator: Operator) -> str:
    """ "rpn/conv_0" of "mask_rcnn_1/rpn_1/conv_0_1/Relu;mask_rcnn_1/..."."""
    parts = operator.name.split(";")[0].split("/")[1:3]
    return "/".join(part.rpartition("_")[0] for part in parts)


@pytest.fixture(scope="module")
def found(exports: dict[str, Parity]) -> list[Operator]:
    return operators(exports["int8"].path.read_bytes())


def test_convolutions_of_backbone_pyramid_and_heads_are_int8(
    found: list[Operator],
) -> None:
    weighted = defaultdict(set)
    for each in found:
        if each.kind in ("CONV_2D", "FULLY_CONNECTED"):
            weighted[layer(each)].add((*each.inputs[:2], each.output))
    in_float = {"rpn/objectness", "rpn/deltas", "box_head/classes", "box_head/deltas"}
    in_bytes = {
        *(f"tiny/conv_{i}" for i in range(1, 6)),
        *(f"pyramid/{kind}_{i}" for kind in ("lateral", "output") for i in range(2, 6)),
        *("rpn/conv_0", "box_head/dense_0", "box_head/dense_1", "mask_head/enlarge"),
        *(f"mask_head/conv_{i}" for i in range(4)),
    }
    assert {k for k, v in weighted.items() if v == {("INT8",) * 3}} == in_bytes
    assert {k for k, v in weighted.items() if v == {("FLOAT32",) * 3}} == in_float
    assert weighted.keys() == in_bytes | in_float


def test_the_sums_of_the_pyramid_are_int8(found: list[Operator]) -> None:
    sums = [e for e in found if e.kind == "ADD" and "/pyramid_" in e.name]
    assert len(sums) == 3
    assert {each.output for each in sums} == {"INT8"}


def test_boxes_scores_suppression_and_masks_are_float(found: list[Operator]) -> None:
    named = ("anchors", "proposals", "roi_align", "detections", "masks")
    of_geometry = [
        each
        for each in found
        if each.kind not in ("QUANTIZE", "DEQUANTIZE")
        and any(f"/{name}" in each.name or f"{name}_" in each.name for name in named)
    ]
    assert len(of_geometry) > 500
    assert "INT8" not in {each.output for each in of_geometry}
    for kind in ("NON_MAX_SUPPRESSION_V4", "SOFTMAX", "LOGISTIC"):
        some = [each for each in found if each.kind == kind]
        assert some
        assert all(each.inputs[0] == "FLOAT32" for each in some)


def test_a_backbone_of_depthwise_convolutions_stays_float() -> None:
    backbone = [(["thin", f"conv_{i}"], "CONV_2D") for i in range(2)]
    depthwise = (["thin", "depthwise"], "DEPTHWISE_CONV_2D")
    pyramid = (["pyramid", "lateral_2"], "CONV_2D")
    assert detector_plan([*backbone, pyramid]) == [True, True, True]
    assert detector_plan([*backbone, depthwise, pyramid]) == [False] * 3 + [True]


def range_of_the_image(content: bytes, photos: np.ndarray) -> tuple[float, float]:
    """What the first convolution takes of normalised photos calibrated on these."""
    with quiet():
        quantized = int8_activations(
            content, {"images": photos}, interpreter.all_outputs
        )
    (graph,) = parse(quantized).subgraphs
    (tensor,) = [
        graph.tensors[operator.outputs[0]]
        for operator in graph.operators
        if graph.tensors[operator.inputs[0]].name.endswith(b"normalization_1/add")
    ]
    (scale,), (zero,) = tensor.quantization.scale, tensor.quantization.zeroPoint
    return scale * (-128 - zero), scale * (127 - zero)


def test_ranges_are_those_of_the_images(content: bytes, images: np.ndarray) -> None:
    for photos in (images, images // 2 + 60):
        values = (photos.astype(np.float32) - 127.5) / 64
        np.testing.assert_allclose(
            range_of_the_image(content, photos),
            (min(values.min(), 0), max(values.max(), 0)),
            atol=0.03,
        )


def test_a_few_values_far_out_do_not_widen_a_range(
    content: bytes, images: np.ndarray
) -> None:
    photos = np.tile(images // 4 + 96, (4, 1, 1, 1))  # within half a unit of 0
    photos[0, 0, 0, :2] = 0, 255
    low, high = range_of_the_image(content, photos)
    assert -1.2 < low < -0.45
    assert 0.45 < high < 1.2


def test_a_quantiser_that_leaves_the_plan_is_an_error(
    content: bytes, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorflow.lite.python import convert

    quantize = convert.mlir_quantize
    # As a converter would that does not know the list.
    monkeypatch.setattr(convert, "mlir_quantize", lambda model, **_: quantize(model))
    with pytest.raises(ValueError, match=r'left the plan.*quantize="dynamic"'), quiet():
        int8_activations(content, {"images": images}, interpreter.all_outputs)


def test_blank_images_teach_nothing(content: bytes) -> None:
    blank = np.full((2, 64, 96, 3), 128, np.uint8)
    with pytest.raises(ValueError, match="never change over the 2 calibration images"):
        int8_activations(content, {"images": blank}, interpreter.all_outputs)
