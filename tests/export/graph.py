"""What is in a TFLite file, read without `kvision.export`."""

from typing import NamedTuple

from tensorflow.lite.python import schema_py_generated as schema


class Operator(NamedTuple):
    """One operator: kind and types by their names in TFLite's schema."""

    kind: str
    name: str  # of its first output: the path of the Keras layer
    inputs: tuple[str, ...]
    output: str


def names(enumeration: type) -> dict[int, str]:
    return {code: name for name, code in vars(enumeration).items() if name.isupper()}


KINDS, TYPES = names(schema.BuiltinOperator), names(schema.TensorType)


def parse(content: bytes) -> schema.ModelT:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def operators(content: bytes) -> list[Operator]:
    model = parse(content)
    (graph,) = model.subgraphs
    codes = [
        max(code.builtinCode, code.deprecatedBuiltinCode)
        for code in model.operatorCodes
    ]
    return [
        Operator(
            KINDS[codes[operator.opcodeIndex]],
            graph.tensors[operator.outputs[0]].name.decode(),
            tuple(TYPES[graph.tensors[i].type] for i in operator.inputs if i >= 0),
            TYPES[graph.tensors[operator.outputs[0]].type],
        )
        for operator in graph.operators
    ]
