"""TFLite files as Python objects: their operators, and what a reader must know of them.

The description of the model (class names, image size, how photos are resized) is a zip
archive behind the flatbuffer, as in the associated files of TFLite Metadata: runtimes
ignore it, `unzip` and Python's `zipfile` read it.
"""

import io
import json
import zipfile
from typing import Any

import numpy as np

__all__ = [
    "DESCRIPTION",
    "LABELS",
    "check_builtin",
    "check_rank",
    "operator_name",
    "read",
    "with_description",
    "write",
]

Model = Any  # schema_py_generated.ModelT
Operator = Any  # schema_py_generated.OperatorT

DESCRIPTION = "kvision.json"
LABELS = "labels.txt"


def read(content: bytes) -> Model:
    """Parse a TFLite file.

    Args:
        content: the file.

    Returns:
        Its object of TensorFlow's generated schema.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def write(model: Model) -> bytes:
    """Serialise what `read` gave.

    Args:
        model: the object.

    Returns:
        The file.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def operator_name(model: Model, operator: Operator) -> str:
    """Name the kind of an operator as TFLite's schema does, such as "CONV_2D".

    Args:
        model: the object that holds the operator.
        operator: one of its operators.

    Returns:
        The name; "CUSTOM" also for ops of TensorFlow itself (Flex).
    """
    from tensorflow.lite.python import schema_py_generated as schema

    names = {
        code: name
        for name, code in vars(schema.BuiltinOperator).items()
        if isinstance(code, int)
    }
    code = model.operatorCodes[operator.opcodeIndex]
    # Files of old converters have the code in the narrower field only.
    return names[max(code.builtinCode, code.deprecatedBuiltinCode)]


def check_builtin(content: bytes) -> None:
    """Refuse a file that the standard runtime of a phone cannot run.

    Args:
        content: the file.

    Raises:
        ValueError: it has ops of TensorFlow (Flex) or custom ops; the message lists
            them and the layers they come from.
    """
    model = read(content)
    found = [
        f"{(model.operatorCodes[operator.opcodeIndex].customCode or b'?').decode()} "
        f"in {subgraph.tensors[operator.outputs[0]].name.decode()}"
        for subgraph in model.subgraphs
        for operator in subgraph.operators
        if operator_name(model, operator) == "CUSTOM"
    ]
    if found:
        raise ValueError(
            "The TFLite file needs ops that are not builtin: " + "; ".join(found)
        )


def check_rank(content: bytes, max_rank: int) -> None:
    """Refuse a file with tensors of more dimensions than delegates for GPUs take.

    Args:
        content: the file.
        max_rank: most dimensions of a tensor.

    Raises:
        ValueError: there are such tensors; the message lists operators and layers.
    """
    model = read(content)
    found = [
        f"{operator_name(model, operator)} {shape.tolist()} in {tensor.name.decode()}"
        for subgraph in model.subgraphs
        for operator in subgraph.operators
        for tensor in (subgraph.tensors[index] for index in operator.outputs)
        if tensor.shape is not None
        and len(shape := np.asarray(tensor.shape)) > max_rank
    ]
    if found:
        raise ValueError(
            f"The TFLite file has {len(found)} tensors of more than {max_rank} "
            "dimensions, which GPUs of phones do not run: " + "; ".join(found[:5])
        )


def with_description(content: bytes, description: dict[str, Any]) -> bytes:
    """Append a description to a TFLite file.

    Args:
        content: the file.
        description: values that json knows, `class_names` among them.

    Returns:
        The file with `kvision.json` and `labels.txt` behind it.
    """
    file = io.BytesIO(content)
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(DESCRIPTION, json.dumps(description, indent=2))
        archive.writestr(LABELS, "\n".join(description["class_names"]) + "\n")
    return file.getvalue()
