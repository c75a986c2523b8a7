"""What exporting a detector means beyond what every model shares."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from kvision.export.activation_quantization import detector_plan
from kvision.export.description import describe
from kvision.export.matching import Difference, Tolerance, compare
from kvision.export.parity import Run, in_batches
from kvision.export.precision import average_precision
from kvision.export.preprocessing import decode, fit
from kvision.export.samples import comparison_images, fitted

__all__ = ["DetectionTask", "detect_in_files", "in_photo_pixels"]

Array = np.ndarray
Tensor = Any
Outputs = dict[str, Any]

# Points of AP that may be lost, as shares of 1.
_MAX_AP_LOST = {"float16": 0.002, "dynamic": 0.01, "int8": 0.01}


class DetectionTask:
    """A detector to be exported.

    Args:
        model: a detector of `kvision.models`.
        twin_of: function from a model to the twin that is exported.

    Attributes:
        description: what travels with the exported model.
        model: the twin that is exported.
        plan: which operators of a TFLite file become 8-bit.
        max_rank: most dimensions of a tensor in a TFLite file; None for any.
    """

    max_rank: int | None = None
    plan = staticmethod(detector_plan)

    def __init__(self, model: Any, twin_of: Callable[[Any], Any]) -> None:
        self.description = describe(model)
        self.model = twin_of(model)

    def outputs_of_files(self, contents: Tensor) -> Outputs:
        """Detect in image files (B,), in the pixels of each photo."""
        return detect_in_files(self.model, contents)

    def compared(
        self, forms: Mapping[str, Run], reference: Run, images: Any, kind: str
    ) -> tuple[Difference, ...]:
        """Run forms beside the model on images of its input size.

        Args:
            forms: name -> function of images.
            reference: the model as such a function.
            images: photos of any size, or None.
            kind: of the numbers: "float32" must be equal.

        Returns:
            A difference for each form.
        """
        inputs = self.inputs(fitted(self.model, comparison_images(self.model, images)))
        expected = in_batches(reference, inputs)
        return tuple(
            self._difference(form, expected, in_batches(run, inputs), kind)
            for form, run in forms.items()
        )

    def compared_in_files(
        self, form: str, run: Run, reference: Run, images: Any, kind: str
    ) -> Difference:
        """Run a form that takes files beside the model.

        Args:
            form: its name.
            run: function of files (B,) to outputs in pixels of the photos.
            reference: the model as a function of images.
            images: photos of any size, or None.
            kind: of the numbers: "float32" must be equal.

        Returns:
            The difference.
        """
        photos = comparison_images(self.model, images)
        files = np.array([tf.io.encode_png(photo).numpy() for photo in photos], object)
        expected = in_batches(reference, self.inputs(fitted(self.model, photos)))
        expected = _in_photos(self.model, expected, photos)
        found = in_batches(run, {"encoded_images": files})
        return self._difference(form, expected, found, kind)

    def measured(
        self,
        kind: str,
        run: Run,
        reference: Run,
        images: Any,
        data: Any,
        num_images: int,
    ) -> Difference:
        """Compare a file with the model, and measure the AP it loses if there is data.

        Args:
            kind: of the numbers in the file.
            run: the file as a function of images.
            reference: the model as such a function.
            images: photos of any size, or None.
            data: batches of (images, targets), or None.
            num_images: how many images of `data` are scored.

        Returns:
            The difference.
        """
        (difference,) = self.compared({kind: run}, reference, images, kind)
        if data is None:
            return difference
        before, after = (
            average_precision(self.model, each, data, num_images)
            for each in (reference, run)
        )
        return replace(
            difference,
            ap={name: (before[name], after[name]) for name in before},
            max_ap_lost=_MAX_AP_LOST.get(kind),
        )

    @staticmethod
    def has_targets(data: Any) -> bool:
        """Tell whether a data set has objects to find."""
        spec = getattr(data, "element_spec", None)
        return (
            isinstance(spec, tuple)
            and len(spec) == 2
            and isinstance(spec[1], dict)
            and "gt_boxes" in spec[1]
        )

    @staticmethod
    def inputs(images: Array) -> dict[str, Array]:
        """Return what the model takes, by name: images alone."""
        return {"images": images}

    def _difference(
        self, form: str, expected: Outputs, outputs: Outputs, kind: str
    ) -> Difference:
        threshold = self.model.get_config()["score_threshold"]
        tolerance = Tolerance() if kind == "float32" else None
        return compare(form, expected, outputs, threshold, tolerance)


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
