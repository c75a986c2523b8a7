"""A classifier seen as a detector is: its sizes, its names and a dict of outputs.

A classifier is a plain Functional model. What a program must know of it is in the
configs of two of its layers: "preprocessing" says how photos are brought to its input,
"head" names the classes.
"""

from typing import Any, Literal

import numpy as np

__all__ = ["Classifier", "is_classifier"]

Array = np.ndarray
Tensor = Any


def is_classifier(model: Any) -> bool:
    """Tell whether a model is a classifier by the names of its layers.

    Args:
        model: any model.

    Returns:
        Whether it has the layers "preprocessing" and "head".
    """
    return {"preprocessing", "head"} <= _layer_names(model)


class Classifier:
    """What a classifier says about itself, and its outputs as a dict.

    Args:
        model: a Functional `keras.Model` of images (B, H, W, C) in 0..255 to logits
            (B, K) with the layers "preprocessing" (`kvision.layers.ImagePreprocessing`)
            and "head" (`kvision.layers.ClassificationHead`). Its input may be a dict of
            "images" and "regions" (B, num_regions, 4).

    Attributes:
        model: the model.
        name: its name.
        class_names: K names; "0", "1", ... where the model has none.
        image_size: (height, width) of its input in pixels.
        num_channels: of its input.
        num_regions: how many boxes of interest it takes with an image; 0 for none.
        resize: "crop", "stretch" or "pad".
        crop_fraction: share of the shorter side that "crop" keeps.
        interpolation: "bicubic" or "bilinear".

    Raises:
        ValueError: it is no classifier.
    """

    def __init__(self, model: Any) -> None:
        shape, num_regions, classes = _shapes(model)
        rule = model.get_layer("preprocessing")
        names = getattr(model.get_layer("head"), "class_names", None)
        self.model = model
        self.name: str = model.name
        self.class_names = list(names or map(str, range(classes)))
        self.image_size: tuple[int, int] = (shape[1], shape[2])
        self.num_channels: int = shape[3]
        self.num_regions = num_regions
        self.resize: Literal["crop", "stretch", "pad"] = rule.resize
        self.crop_fraction = float(rule.crop_fraction)
        self.interpolation: Literal["bicubic", "bilinear"] = rule.interpolation

    @property
    def variables(self) -> list[Any]:
        """All variables of the model."""
        return list(self.model.variables)

    def __call__(
        self, images: Tensor, regions: Tensor | None = None, training: bool = False
    ) -> dict[str, Tensor]:
        """Classify images (B, H, W, C) in 0..255.

        Args:
            images: the images, of the input's size.
            regions: (B, num_regions, 4) boxes in its pixels, rows of zeros as padding;
                None for no boxes.
            training: whether to drop; False.

        Returns:
            `logits` and `scores` (their softmax), both (B, K) float32.
        """
        from keras import ops

        inputs = self.inputs(images, regions)
        logits = ops.cast(self.model(inputs, training=training), "float32")
        return {"logits": logits, "scores": ops.softmax(logits)}

    def logits(self, images: Array, regions: Array | None = None) -> Array:
        """Run a batch as `predict_on_batch` does.

        Args:
            images: (B, H, W, C) array in 0..255.
            regions: as of `__call__`.

        Returns:
            (B, K) float32 array.
        """
        inputs = self.inputs(images, regions)
        return np.asarray(self.model.predict_on_batch(inputs), np.float32)

    def inputs(self, images: Tensor, regions: Tensor | None = None) -> Any:
        """Put together what the model takes.

        Args:
            images: (B, H, W, C) in 0..255.
            regions: as of `__call__`.

        Returns:
            The images, or a dict of images and regions.
        """
        if not self.num_regions:
            return images
        if regions is None:
            from keras import ops

            regions = ops.zeros((ops.shape(images)[0], self.num_regions, 4))
        return {"images": images, "regions": regions}


def _layer_names(model: Any) -> set[str]:
    return {layer.name for layer in getattr(model, "layers", ())}


def _shapes(model: Any) -> tuple[tuple[int, ...], int, int]:
    """Return the shape of the images and the numbers of regions and of classes."""
    missing = {"preprocessing", "head"} - _layer_names(model)
    if missing:
        raise ValueError(
            "Expected a classifier of kvision.models, or a Functional model with the "
            'layers "preprocessing" (kvision.layers.ImagePreprocessing) and "head" '
            "(kvision.layers.ClassificationHead). Received a "
            f"{type(model).__name__} without {' and '.join(sorted(missing))}"
        )
    entry, output = model.input, model.output
    num_regions = 0
    if isinstance(entry, dict) and set(entry) == {"images", "regions"}:
        num_regions, entry = entry["regions"].shape[1], entry["images"]
    shape = getattr(entry, "shape", ())
    if len(getattr(output, "shape", ())) != 2:
        raise ValueError(
            f"Expected a classifier with one output (B, K). {model.name} gives "
            f"{output}: was it built with features=True?"
        )
    if len(shape) != 4 or None in shape[1:]:
        raise ValueError(
            "Expected a classifier of images (B, H, W, C) of one size. Received: "
            f"input {model.input}"
        )
    return tuple(shape), num_regions, int(output.shape[1])
