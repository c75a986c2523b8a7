"""TFLite files as objects: reading, refusing, describing."""

import io
import json
import zipfile

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema

from kvision.export.flatbuffer import (
    check_builtin,
    operator_name,
    read,
    with_description,
    write,
)
from tests.export.graph import operators


def test_what_is_read_and_written_is_the_same(content: bytes) -> None:
    model = read(content)
    (graph,) = model.subgraphs
    kinds = [operator_name(model, operator) for operator in graph.operators]
    assert kinds == [each.kind for each in operators(content)]
    assert {"CONV_2D", "FULLY_CONNECTED", "SOFTMAX"} <= set(kinds)
    assert operators(write(model)) == operators(content)


def test_old_and_new_codes_of_operators() -> None:
    for old, new in ((3, 0), (3, 3), (127, 130)):  # converters fill one or both
        code, model = schema.OperatorCodeT(), schema.ModelT()
        code.deprecatedBuiltinCode, code.builtinCode = old, new
        model.operatorCodes = [code]
        operator = schema.OperatorT()
        operator.opcodeIndex = 0
        expected = {3: "CONV_2D", 130: "BROADCAST_TO"}[max(old, new)]
        assert operator_name(model, operator) == expected


def test_ops_that_are_not_builtin_are_named_with_their_layers(content: bytes) -> None:
    check_builtin(content)
    model = read(content)
    code = next(
        code
        for code in model.operatorCodes
        if code.builtinCode == schema.BuiltinOperator.SOFTMAX
    )
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"FlexErfinv"
    with pytest.raises(
        ValueError, match=r"not builtin: FlexErfinv in mask_rcnn_\d*/detections"
    ):
        check_builtin(write(model))


def test_description_is_behind_a_file_that_still_runs(
    content: bytes, images: np.ndarray
) -> None:
    description = {"class_names": ["cell", "größere Zelle"], "image_size": [64, 96]}
    described = with_description(content, description)
    assert described.startswith(content)
    with zipfile.ZipFile(io.BytesIO(described)) as archive:
        assert json.loads(archive.read("kvision.json")) == description
        labels = archive.read("labels.txt").decode()
    assert labels == "cell\ngrößere Zelle\n"
    plain, other = (
        Interpreter(model_content=each).get_signature_runner()(images=images[:1])
        for each in (content, described)
    )
    np.testing.assert_array_equal(plain["boxes"], other["boxes"])
