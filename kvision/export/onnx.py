"""ONNX files, for servers and runtimes outside of TensorFlow (extra `onnx`)."""

import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from kvision.export.classification import ClassificationTask
from kvision.export.conversion import quiet
from kvision.export.entries import entries
from kvision.export.files import write_file
from kvision.export.flatbuffer import DESCRIPTION
from kvision.export.limits import check_size
from kvision.export.parity import Parity, check, runner
from kvision.export.tasks import task_of

__all__ = ["onnx", "onnx_runner"]

Array = np.ndarray


def onnx(
    model: Any,
    path: str | PathLike[str],
    *,
    images: Any = None,
    data: Any = None,
    num_images: int = 200,
) -> Parity:
    """Write a classifier as an ONNX file and compare it with the model.

    The file takes `images` (B, H, W, C) uint8 of the model's input size, any B, and
    gives `logits` and `scores` (B, K) float32. A model that takes boxes of interest has
    the second input `regions` (B, num_regions, 4) float32 in pixels of the input, zeros
    as padding. Class names and the way photos are resized are in the file's metadata
    under "kvision.json".

    Args:
        model: a classifier of `kvision.models`. Under a half-precision policy its
            float32 twin is exported.
        path: the file to write, `.onnx`. An existing one is replaced once the new one
            has passed the comparison.
        images: photos of any size to compare on: paths, arrays, a data set. By default
            some are generated.
        data: batches of (images, labels) to compare on instead.
        num_images: how many images of `data` are taken.

    Returns:
        What was compared, after it was printed.

    Raises:
        ImportError: the extra `onnx` is not installed.
        ParityError: logits differ by more than 1e-4 of the largest. Nothing is written.
        ValueError: an argument is not as above, an op has no ONNX form, or the weights
            are beyond 2 GB.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"path must end in .onnx. Received: {path}")
    _require_extra()
    task = task_of(model)
    if not isinstance(task, ClassificationTask):
        raise ValueError(
            "ONNX is for classifiers: the suppression inside a detector has no form "
            "there that is equal to it. Export a SavedModel or TFLite."
        )
    check_size(task.model, "ONNX")
    content = _with_description(_convert(task), task.description)
    run, reference = onnx_runner(content), runner(task.model)
    difference: Any = task.measured("float32", run, reference, images, data, num_images)
    parity = check(Parity(path, len(content), (difference,)))
    write_file(path, content)
    return parity


def onnx_runner(content: bytes) -> Callable[..., dict[str, Array]]:
    """Load an ONNX file.

    Args:
        content: the file.

    Returns:
        Function from inputs by name to the dict of outputs.
    """
    from onnxruntime import InferenceSession

    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(**inputs: Any) -> dict[str, Array]:
        arrays = {name: np.asarray(values) for name, values in inputs.items()}
        values = session.run(names, arrays)
        return dict(zip(names, values, strict=True))

    return run


def _require_extra() -> None:
    try:
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "ONNX needs tf2onnx and onnxruntime: pip install 'kvision[onnx]'"
        ) from error


def _convert(task: ClassificationTask) -> bytes:
    entry = task.model.inputs(**entries(task.model))
    _know_erfc()
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # what it cannot convert is said below
    try:
        with tempfile.TemporaryDirectory() as folder, quiet():
            file = Path(folder) / "model.onnx"
            with warnings.catch_warnings():
                # Keras asks NumPy for a name that NumPy will give another meaning.
                warnings.simplefilter("ignore", FutureWarning)
                task.functional().export(
                    file, format="onnx", verbose=False, input_signature=[entry]
                )
            return file.read_bytes()
    finally:
        logger.setLevel(level)


def _know_erfc() -> None:
    """Teach tf2onnx the op of the exact GELU: ONNX has erf only."""
    from tf2onnx.handler import tf_op

    class Erfc:
        @classmethod
        def version_9(cls, graph: Any, node: Any, **_: Any) -> None:
            one = graph.make_const(f"{node.name}_one", np.ones((), np.float32))
            erf = graph.make_node("Erf", node.input)
            graph.remove_node(node.name)
            graph.make_node(
                "Sub",
                [one.output[0], erf.output[0]],
                outputs=node.output,
                name=node.name,
            )

    tf_op("Erfc")(Erfc)


def _with_description(content: bytes, description: dict[str, Any]) -> bytes:
    """Refuse what no runtime knows, and write class names and preprocessing."""
    from onnx import defs, load_from_string

    model = load_from_string(content)
    unknown = [
        f"{node.op_type} in {node.name.rpartition('/')[0] or node.name}"
        for node in model.graph.node
        if not defs.has(node.op_type, node.domain)
    ]
    if unknown:
        raise ValueError("These ops have no ONNX form: " + "; ".join(unknown[:5]))
    entry = model.metadata_props.add()
    entry.key, entry.value = DESCRIPTION, json.dumps(description, indent=2)
    return bytes(model.SerializeToString())
