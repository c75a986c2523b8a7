"""SavedModels of detectors, in the layout that TF Serving reads."""

import json
import tempfile
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kvision.export.description import describe
from kvision.export.files import new_folder
from kvision.export.flatbuffer import DESCRIPTION, LABELS
from kvision.export.matching import Difference, Tolerance, compare
from kvision.export.parity import Parity, check, in_batches, runner
from kvision.export.preprocessing import decode, fit
from kvision.export.samples import comparison_images, fitted
from kvision.export.twin import in_float32
from kvision.ops.tracing import not_empty

__all__ = ["saved_model"]

Array = np.ndarray
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
    """Write a detector as a SavedModel and compare its signatures with the model.

    It loads in plain TensorFlow without kvision. Its signatures:

    - `serving_default`: `images` (B, H, W, C) uint8 of the model's input size, any B
      from 1 on, to the model's dict: boxes in pixels of the input, masks
      (B, M, 28, 28) as grids over them.
    - `serving_xla`: the same, compiled by XLA at the first call with each B.
    - `encoded_images`: `encoded_images` (B,) bytes of JPEG or PNG files of any size,
      turned upright by their EXIF orientation, to the same dict in pixels of each
      photo, boxes cut to it; `mask_boxes` (B, M, 4) are the boxes before they were cut,
      over which the masks lie; `image_sizes` (B, 2) int32 the height and width of each
      photo. It is there for models of 1, 3 or 4 channels.

    The assets `labels.txt` and `kvision.json` hold class names and preprocessing.

    Args:
        model: a detector of `kvision.models`. Under a half-precision policy its
            float32 twin is exported.
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
            or 1e-2 in masks. Nothing is written.
        ValueError: `model` is not a detector.
    """
    description = describe(model)
    model = in_float32(model)
    path = Path(path)
    with new_folder(path, overwrite) as folder:
        _save(model, folder, description)
        return check(_compare(model, path, folder, images))


def _save(model: Any, folder: Path, description: dict[str, Any]) -> None:
    module = tf.Module()
    # What the functions capture: the module alone is saved, no Keras object.
    module.weights = [variable.value for variable in model.variables]
    with tempfile.TemporaryDirectory() as sources:
        module.files = _assets(Path(sources), description)
        tf.saved_model.save(
            module,
            str(folder),
            signatures=_signatures(model),
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


def _signatures(model: Any) -> dict[str, Any]:
    pixels = tf.TensorSpec(
        (None, *model.image_size, model.num_channels), tf.uint8, name="images"
    )
    contents = tf.TensorSpec((None,), tf.string, name="encoded_images")

    def detect(images: Tensor) -> Outputs:
        return dict(model(images, training=False))

    compiled = tf.function(detect, jit_compile=True)

    @tf.function(input_signature=[pixels])
    def serving_default(images: Tensor) -> Outputs:
        return detect(not_empty(images, _EMPTY))

    @tf.function(input_signature=[pixels])
    def serving_xla(images: Tensor) -> Outputs:
        return compiled(not_empty(images, _EMPTY))

    @tf.function(input_signature=[contents])
    def encoded_images(encoded_images: Tensor) -> Outputs:
        return detect_in_files(model, not_empty(encoded_images, _EMPTY))

    signatures = {"serving_default": serving_default, "serving_xla": serving_xla}
    if _has_files(model):
        signatures["encoded_images"] = encoded_images
    return signatures


def _has_files(model: Any) -> bool:
    """Tell whether image files have as many channels as the model takes."""
    return model.num_channels in (1, 3, 4)


def detect_in_files(model: Any, contents: Tensor) -> Outputs:
    """Detect in image files, in the pixels of each photo.

    Args:
        model: a detector.
        contents: (B,) string tensor, the bytes of the files.

    Returns:
        The model's dict, with `mask_boxes` if it has masks, and `image_sizes`.
    """

    def prepare(content: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image = decode(content, model.num_channels)
        pixels, scales = fit(image, model.image_size, model.resize)
        return pixels, scales, tf.shape(image)[:2]

    shape = (*model.image_size, model.num_channels)
    images, scales, sizes = tf.map_fn(
        prepare,
        contents,
        fn_output_signature=(
            tf.TensorSpec(shape, tf.uint8),
            tf.TensorSpec((2,), tf.float32),
            tf.TensorSpec((2,), tf.int32),
        ),
    )
    outputs = in_photo_pixels(dict(model(images, training=False)), scales, sizes)
    return {**outputs, "image_sizes": sizes}


def in_photo_pixels(outputs: Outputs, scales: Tensor, sizes: Tensor) -> Outputs:
    """Take detections from the pixels of the input to those of the photos.

    Detections that lie wholly in the padding are not in the photo: the others move up
    and zeros (labels -1) follow.

    Args:
        outputs: a detector's dict of B images.
        scales: (B, 2) float32 tensor (y, x): pixels of the input = those of the photo
            * scale.
        sizes: (B, 2) int32 tensor: height and width of the photos.

    Returns:
        The dict with boxes cut to the photos and, with masks, `mask_boxes` not cut.
    """
    whole = outputs["boxes"] / tf.gather(scales, [1, 0, 1, 0], axis=1)[:, None]
    edges = tf.cast(tf.gather(sizes, [1, 0, 1, 0], axis=1), tf.float32)[:, None]
    boxes = tf.clip_by_value(whole, 0.0, edges)
    is_left = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    is_left = tf.logical_and(is_left, outputs["labels"] >= 0)
    order = tf.argsort(tf.cast(is_left, tf.int32), direction="DESCENDING", stable=True)

    def arranged(values: Tensor, filling: int) -> Tensor:
        mask = is_left
        for _ in range(values.shape.rank - 2):
            mask = mask[..., None]
        filled = tf.where(mask, values, tf.cast(filling, values.dtype))
        return tf.gather(filled, order, batch_dims=1)

    arrangements = {
        "boxes": arranged(boxes, 0),
        "scores": arranged(outputs["scores"], 0),
        "labels": arranged(outputs["labels"], -1),
        "num_detections": tf.reduce_sum(tf.cast(is_left, tf.int32), axis=1),
    }
    if "masks" in outputs:
        arrangements["masks"] = arranged(outputs["masks"], 0)
        arrangements["mask_boxes"] = arranged(whole, 0)
    return arrangements


def _compare(model: Any, path: Path, folder: Path, images: Any) -> Parity:
    signatures = tf.saved_model.load(str(folder)).signatures
    photos = comparison_images(model, images)
    pixels = fitted(model, photos)
    expected = in_batches(runner(model), pixels)

    def difference(form: str, expected: Outputs, outputs: Outputs) -> Difference:
        threshold = model.get_config()["score_threshold"]
        return compare(form, expected, outputs, threshold, Tolerance())

    differences = [
        difference(form, expected, in_batches(signatures[form], pixels))
        for form in ("serving_default", "serving_xla")
    ]
    if _has_files(model):
        files = np.array([tf.io.encode_png(photo).numpy() for photo in photos], object)
        outputs = in_batches(signatures["encoded_images"], files)
        expected = _in_photos(model, expected, photos)
        differences.append(difference("encoded_images", expected, outputs))
    num_bytes = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return Parity(path, num_bytes, tuple(differences))


def _in_photos(model: Any, outputs: Outputs, photos: list[Array]) -> Outputs:
    """Do what `in_photo_pixels` does once more, in NumPy and without its order."""
    factors = [_factors(model, photo.shape) for photo in photos]
    edges = np.array([photo.shape[1::-1] * 2 for photo in photos], np.float32)
    whole = outputs["boxes"] * np.array(factors, np.float32)[:, None]
    boxes = np.clip(whole, 0, edges[:, None])
    is_left = np.all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    labels = np.where(is_left, outputs["labels"], -1)
    return {**outputs, "boxes": boxes, "labels": labels}


def _factors(model: Any, shape: tuple[int, ...]) -> list[float]:
    """Return how many pixels of a photo one pixel of the input is: x, y, x, y."""
    size, new = shape[:2], model.image_size
    if model.resize == "pad":
        scale = min(side / old for side, old in zip(new, size, strict=True))
        new = [max(1, int(old * scale + 0.5)) for old in size]
    return [size[1] / new[1], size[0] / new[0]] * 2
