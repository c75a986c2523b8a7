"""SavedModels, in the layout that TF Serving reads."""

import json
import tempfile
from os import PathLike
from pathlib import Path
from typing import Any

import tensorflow as tf

from kvision.export.entries import entries
from kvision.export.files import new_folder
from kvision.export.flatbuffer import DESCRIPTION, LABELS
from kvision.export.parity import Parity, check, runner
from kvision.export.tasks import Task, task_of
from kvision.ops.tracing import not_empty

__all__ = ["saved_model"]

Tensor = Any
Outputs = dict[str, Any]

_EMPTY = "the batch is empty"


def saved_model(
    model: Any,
    path: str | PathLike[str],
    *,
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
        images: photos of any size to compare on: paths, arrays, a data set. By default
            some are generated.
        overwrite: whether an existing folder is replaced.

    Returns:
        What was compared, after it was printed.

    Raises:
        FileExistsError: there is such a folder and `overwrite` is False.
        ParityError: detections of a signature differ by more than 0.5 px, 1e-3 in score
            or 1e-2 in masks, or logits by more than 1e-4 of the largest. Nothing is
            written.
        ValueError: `model` is neither a detector nor a classifier.
    """
    task = task_of(model)
    path = Path(path)
    with new_folder(path, overwrite) as folder:
        _save(task, folder)
        return check(_compare(task, path, folder, images))


def _save(task: Task, folder: Path) -> None:
    module = tf.Module()
    # What the functions capture: the module alone is saved, no Keras object.
    module.weights = [variable.value for variable in task.model.variables]
    with tempfile.TemporaryDirectory() as sources:
        module.files = _assets(Path(sources), task.description)
        tf.saved_model.save(
            module,
            str(folder),
            signatures=_signatures(task),
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


def _signatures(task: Task) -> dict[str, Any]:
    model = task.model
    specs = entries(model)
    contents = tf.TensorSpec((None,), tf.string, name="encoded_images")

    def outputs(images: Tensor, **regions: Tensor) -> Outputs:
        return dict(model(images, **regions, training=False))

    compiled = tf.function(outputs, jit_compile=True)

    @tf.function
    def serving_default(images: Tensor, **regions: Tensor) -> Outputs:
        return outputs(not_empty(images, _EMPTY), **regions)

    @tf.function
    def serving_xla(images: Tensor, **regions: Tensor) -> Outputs:
        return compiled(not_empty(images, _EMPTY), **regions)

    @tf.function(input_signature=[contents])
    def encoded_images(encoded_images: Tensor) -> Outputs:
        return task.outputs_of_files(not_empty(encoded_images, _EMPTY))

    signatures = {
        "serving_default": serving_default.get_concrete_function(**specs),
        "serving_xla": serving_xla.get_concrete_function(**specs),
    }
    if _takes_files(model):
        signatures["encoded_images"] = encoded_images
    return signatures


def _takes_files(model: Any) -> bool:
    """Tell whether image files alone, of so many channels, are what a model takes."""
    return model.num_channels in (1, 3, 4) and not getattr(model, "num_regions", 0)


def _compare(task: Task, path: Path, folder: Path, images: Any) -> Parity:
    signatures = tf.saved_model.load(str(folder)).signatures
    reference = runner(task.model)
    forms = {form: signatures[form] for form in ("serving_default", "serving_xla")}
    differences: Any = task.compared(forms, reference, images, "float32")
    if _takes_files(task.model):
        form = "encoded_images"
        files = task.compared_in_files(form, signatures[form], reference, images)
        differences = (*differences, files)
    num_bytes = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return Parity(path, num_bytes, differences)
