"""SavedModels, in the layout that TF Serving reads."""

import json
import tempfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import tensorflow as tf

from kvision.export.entries import entries
from kvision.export.fast import fast_twin, traced
from kvision.export.files import new_folder
from kvision.export.flatbuffer import DESCRIPTION, LABELS
from kvision.export.parity import Parity, check, runner
from kvision.export.tasks import Task, task_of
from kvision.ops.tracing import not_empty

__all__ = ["saved_model"]

Tensor = Any
Outputs = dict[str, Any]
Function = Callable[..., Outputs]

_EMPTY = "the batch is empty"
_OF_FILES = "encoded_images"
_CONTENTS = {_OF_FILES: tf.TensorSpec((None,), tf.string, name=_OF_FILES)}


def saved_model(
    model: Any,
    path: str | PathLike[str],
    *,
    precision: str | None = None,
    images: Any = None,
    overwrite: bool = False,
) -> Parity:
    """Write a model as a SavedModel and compare its signatures with the model.

    It loads in plain TensorFlow without kvision. Its signatures:

    - `serving_default`: `images` (B, H, W, C) uint8 of the model's input size, any B
      from 1 on, to a dict. Of a detector: boxes in pixels of the input, masks
      (B, M, 28, 28) as grids over them. Of a classifier: `logits` and `scores` (their
      softmax), (B, K); a classifier that takes boxes of interest has the second input
      `regions` (B, num_regions, 4), in pixels of the input, zeros as padding.
    - `serving_xla`: the same, compiled by XLA at the first call with each B.
    - `encoded_images`: `encoded_images` (B,) bytes of JPEG or PNG files of any size,
      turned upright by their EXIF orientation and resized as the model wants them, to
      the same dict. Of a detector in pixels of each photo, boxes cut to it;
      `mask_boxes` (B, M, 4) are the boxes before they were cut, over which the masks
      lie; `image_sizes` (B, 2) int32 the height and width of each photo. It is there
      for models of 1, 3 or 4 channels that take nothing but images.

    The assets `labels.txt` and `kvision.json` hold class names and preprocessing.

    Args:
        model: a detector or a classifier of `kvision.models`. Under a half-precision
            policy its float32 twin is exported.
        path: the folder to write, for TF Serving NAME/VERSION, such as
            "saved_models/nuclei/1".
        precision: None for a SavedModel that runs anywhere. "float32" or "bfloat16" for
            the fastest on x86 processors: what `kvision.models.for_inference` makes of
            the model, with weights of two bytes each in bfloat16. It has no signature
            `serving_xla`, and other machines may not run it.
        images: photos of any size to compare on: paths, arrays, a data set. By default
            some are generated.
        overwrite: whether an existing folder is replaced.

    Returns:
        What was compared, after it was printed.

    Raises:
        FileExistsError: there is such a folder and `overwrite` is False.
        ParityError: detections of a signature differ by more than 0.5 px, 1e-3 in score
            or 1e-2 in masks, or logits by more than 1e-4 of the largest; in bfloat16,
            on images that were given, more than 2 % of them (and more than one) get
            another top class or logits are correlated by less than 0.99. Nothing is
            written.
        ValueError: `model` is neither a detector nor a classifier, or there is no such
            precision.
    """
    task, path = task_of(model), Path(path)
    served, signatures = task, _portable
    if precision is not None:
        served = task_of(model, lambda given: fast_twin(given, precision))
        signatures = _fast
    kind = precision or "float32"
    with new_folder(path, overwrite) as folder:
        _save(served, signatures(served), folder)
        return check(_compare(task, kind, path, folder, images))


def _save(task: Task, signatures: dict[str, Any], folder: Path) -> None:
    module = tf.Module()
    # What the functions capture: the module alone is saved, no Keras object.
    module.weights = [variable.value for variable in task.model.variables]
    with tempfile.TemporaryDirectory() as sources:
        module.files = _assets(Path(sources), task.description)
        tf.saved_model.save(
            module,
            str(folder),
            signatures=signatures,
            # Nobody trains a served model, and traced gradients are large.
            options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
        )
    _forget_gradients(folder)


def _forget_gradients(folder: Path) -> None:
    """Remove the marks of gradients that were not saved: loading warns of each."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
    from tensorflow.python.saved_model.fingerprinting_utils import write_fingerprint

    file = folder / "saved_model.pb"
    content = SavedModel.FromString(file.read_bytes())
    for graph in content.meta_graphs:
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                node.attr.pop("_gradient_op_type", None)
    file.write_bytes(content.SerializeToString(deterministic=True))
    write_fingerprint(str(folder))


def _assets(folder: Path, description: dict[str, Any]) -> list[Any]:
    labels = "\n".join(description["class_names"]) + "\n"
    (folder / LABELS).write_text(labels, encoding="utf-8")
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2))
    return [tf.saved_model.Asset(str(folder / name)) for name in (LABELS, DESCRIPTION)]


def _portable(task: Task) -> dict[str, Any]:
    """Trace signatures that run on any machine."""
    compiled = tf.function(_outputs_of(task), jit_compile=True)
    specs = entries(task.model)
    signatures = {
        "serving_default": tf.function(_default(task)).get_concrete_function(**specs),
        "serving_xla": tf.function(_checked(compiled)).get_concrete_function(**specs),
    }
    if _takes_files(task.model):
        files = tf.function(_files(task))
        signatures[_OF_FILES] = files.get_concrete_function(**_CONTENTS)
    return signatures


def _fast(task: Task) -> dict[str, Any]:
    """Trace signatures in the forms that are fastest with oneDNN."""
    signatures = {"serving_default": traced(_default(task), entries(task.model))}
    if _takes_files(task.model):
        signatures[_OF_FILES] = traced(_files(task), _CONTENTS)
    return signatures


def _outputs_of(task: Task) -> Function:
    def outputs(images: Tensor, **regions: Tensor) -> Outputs:
        return dict(task.model(images, **regions, training=False))

    return outputs


def _checked(function: Function) -> Function:
    def checked(images: Tensor, **regions: Tensor) -> Outputs:
        return function(not_empty(images, _EMPTY), **regions)

    return checked


def _default(task: Task) -> Function:
    return _checked(_outputs_of(task))


def _files(task: Task) -> Function:
    def outputs(encoded_images: Tensor) -> Outputs:
        return task.outputs_of_files(not_empty(encoded_images, _EMPTY))

    return outputs


def _takes_files(model: Any) -> bool:
    """Tell whether image files alone, of so many channels, are what a model takes."""
    return model.num_channels in (1, 3, 4) and not getattr(model, "num_regions", 0)


def _compare(task: Task, kind: str, path: Path, folder: Path, images: Any) -> Parity:
    signatures = tf.saved_model.load(str(folder)).signatures
    reference = runner(task.model)
    forms = {form: run for form, run in signatures.items() if form != _OF_FILES}
    differences: Any = task.compared(forms, reference, images, kind)
    if run := signatures.get(_OF_FILES):
        files = task.compared_in_files(_OF_FILES, run, reference, images, kind)
        differences = (*differences, files)
    num_bytes = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return Parity(path, num_bytes, differences)
