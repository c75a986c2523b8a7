"""What exporting a classifier means beyond what every model shares."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from kvision.export.activation_quantization import classifier_plan
from kvision.export.classifier import Classifier
from kvision.export.decisions import is_decided
from kvision.export.description import describe
from kvision.export.logits import LogitsDifference, compare_logits
from kvision.export.parity import Run, in_batches
from kvision.export.precision import image_batches
from kvision.export.preprocessing import decode, grey, prepared
from kvision.export.samples import comparison_images, fitted, generated_regions

__all__ = ["ClassificationTask"]

Array = np.ndarray
Tensor = Any
Outputs = dict[str, Any]

# Accuracy that may be lost, as shares of 1.
_MAX_ACCURACY_LOST = {"float16": 0.002, "dynamic": 0.01, "int8": 0.01}


class ClassificationTask:
    """A classifier to be exported.

    Args:
        model: a Functional model; see `Classifier`.
        twin_of: function from a model to the twin that is exported.

    Attributes:
        description: what travels with the exported model.
        model: the twin that is exported, seen as a `Classifier`.
        plan: which operators of a TFLite file become 8-bit.
        max_rank: most dimensions of a tensor in a TFLite file: delegates for GPUs take
            no more.
    """

    max_rank: int | None = 4
    plan = staticmethod(classifier_plan)

    def __init__(self, model: Any, twin_of: Callable[[Any], Any]) -> None:
        self.description = describe(Classifier(model))
        self.model = Classifier(twin_of(model))

    def functional(self) -> Any:
        """Return a Functional model of the outputs by name, for converters of Keras."""
        import keras

        scores = keras.layers.Softmax(name="scores", dtype="float32")
        model = self.model.model
        outputs = {"logits": model.output, "scores": scores(model.output)}
        return keras.Model(model.input, outputs, name=model.name)

    def inputs(self, images: Array) -> dict[str, Array]:
        """Return what the model takes, by name: images, and boxes where it wants some.

        Args:
            images: (N, H, W, C) uint8 array.

        Returns:
            Arrays of N rows; the boxes are generated.
        """
        model = self.model
        if not model.num_regions:
            return {"images": images}
        regions = generated_regions(len(images), model.num_regions, model.image_size)
        return {"images": images, "regions": regions}

    def outputs_of_files(self, contents: Tensor) -> Outputs:
        """Classify image files (B,)."""
        model = self.model

        def pixels(content: Tensor) -> Tensor:
            # Decoders have other weights of colours than Pillow and `kvision.classify`.
            image = decode(content, max(model.num_channels, 3))
            return prepared(model, grey(image) if model.num_channels == 1 else image)

        shape = (*model.image_size, model.num_channels)
        spec = tf.TensorSpec(shape, tf.uint8)
        return model(tf.map_fn(pixels, contents, fn_output_signature=spec))

    def compared(
        self, forms: Mapping[str, Run], reference: Run, images: Any, kind: str
    ) -> tuple[LogitsDifference, ...]:
        """Run forms beside the model on images of its input size.

        Args:
            forms: name -> function of images.
            reference: the model as such a function.
            images: photos of any size, or None.
            kind: of the numbers: "float32" must be equal.

        Returns:
            A difference for each form.
        """
        # Shares need more images than equality does.
        number = 16 if kind == "float32" else 200
        photos = comparison_images(self.model, images, number)
        inputs = self.inputs(fitted(self.model, photos))
        decided = is_decided(self.model, inputs)
        expected = in_batches(reference, inputs)
        return tuple(
            _difference(form, expected, in_batches(run, inputs), decided, kind, images)
            for form, run in forms.items()
        )

    def compared_in_files(
        self, form: str, run: Run, reference: Run, images: Any, kind: str
    ) -> LogitsDifference:
        """Run a form that takes files beside the model.

        Args:
            form: its name.
            run: function of files (B,) to outputs.
            reference: the model as a function of images.
            images: photos of any size, or None.
            kind: of the numbers: "float32" must be equal.

        Returns:
            The difference.
        """
        photos = comparison_images(self.model, images)
        files = np.array([tf.io.encode_png(photo).numpy() for photo in photos], object)
        inputs = self.inputs(fitted(self.model, photos))
        expected = in_batches(reference, inputs)
        found = in_batches(run, {"encoded_images": files})
        decided = is_decided(self.model, inputs)
        return _difference(form, expected, found, decided, kind, images)

    def measured(
        self,
        kind: str,
        run: Run,
        reference: Run,
        images: Any,
        data: Any,
        num_images: int,
    ) -> LogitsDifference:
        """Compare a file with the model, on labelled data if there is any.

        Args:
            kind: of the numbers in the file.
            run: the file as a function of images.
            reference: the model as such a function.
            images: photos of any size, or None.
            data: batches of (images, labels), or None. If given, all is compared on it
                and not on `images`.
            num_images: how many images of `data` are taken.

        Returns:
            The difference.
        """
        if data is None:
            return self.compared({kind: run}, reference, images, kind)[0]
        pixels, labels = _labelled(data, num_images)
        inputs = self.inputs(pixels)
        decided = is_decided(self.model, inputs)
        expected, found = (in_batches(each, inputs) for each in (reference, run))
        return _difference(kind, expected, found, decided, kind, data, labels)

    @staticmethod
    def has_targets(data: Any) -> bool:
        """Tell whether a data set has labels."""
        spec = getattr(data, "element_spec", None)
        return (
            isinstance(spec, tuple)
            and len(spec) == 2
            and len(getattr(spec[1], "shape", None) or ()) in (1, 2)
        )


def _difference(
    form: str,
    expected: Outputs,
    found: Outputs,
    decided: Array,
    kind: str,
    given: Any,
    labels: Array | None = None,
) -> LogitsDifference:
    is_exact = kind == "float32"
    return compare_logits(
        form,
        expected,
        found,
        # Files of fewer bits are judged by shares: a patch that turns is part of it.
        decided=decided if is_exact else None,
        tolerance=1e-4 if is_exact else None,
        # On generated pictures a classifier of photos may be undecided.
        is_judged=not is_exact and given is not None,
        labels=labels,
        max_accuracy_lost=_MAX_ACCURACY_LOST.get(kind),
    )


def _labelled(data: Any, num_images: int) -> tuple[Array, Array]:
    """Collect images (N, H, W, C) uint8 and their labels (N,)."""
    images: list[Array] = []
    labels: list[Array] = []
    for batch, targets in image_batches(data, num_images):
        if isinstance(targets, dict) or targets.ndim not in (1, 2):
            kind = sorted(targets) if isinstance(targets, dict) else targets.shape
            raise ValueError(
                "Expected data= of batches (images, labels) with labels (B,) or "
                f"one-hot (B, K). Received: targets {kind}"
            )
        images.append(batch)
        labels.append(targets if targets.ndim == 1 else targets.argmax(axis=1))
    if not images:
        raise ValueError("data= holds no image")
    return np.concatenate(images), np.concatenate(labels)
