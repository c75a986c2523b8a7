"""Region proposal network: which anchors hold an object, and where exactly."""

from typing import Any

import keras
from keras import ops

from kvision.ops.minimal_filtering import convolve

__all__ = ["RPN"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class RPN(keras.layers.Layer):
    """Score and move the anchors of every pyramid level with shared convolutions.

    Args:
        num_anchors: number of anchors of a cell.
        channels: width of the hidden convolutions; None keeps that of the pyramid.
        num_convs: number of 3x3 convolutions before the two outputs.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Ren et al. 2015, Faster R-CNN, section 3.1; initialisation as in torchvision
    `models/detection/rpn.py`.
    """

    def __init__(
        self,
        num_anchors: int = 3,
        channels: int | None = None,
        num_convs: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_anchors = num_anchors
        self.channels = channels
        self.num_convs = num_convs

    def build(self, input_shape: dict[str, Shape]) -> None:
        """Create the hidden convolutions and the two outputs."""
        shape = next(iter(input_shape.values()))
        channels = self.channels or shape[-1]
        self.convs = []
        for i in range(self.num_convs):
            conv = self._convolution(channels, 3, f"conv_{i}", activation="relu")
            conv.build(shape)
            shape = (*shape[:-1], channels)
            self.convs.append(conv)
        self.objectness = self._convolution(self.num_anchors, 1, "objectness")
        self.objectness.build(shape)
        self.deltas = self._convolution(4 * self.num_anchors, 1, "deltas")
        self.deltas.build(shape)

    def _convolution(
        self, filters: int, kernel_size: int, name: str, **kwargs: Any
    ) -> keras.layers.Conv2D:
        return keras.layers.Conv2D(
            filters,
            kernel_size,
            padding="same",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            dtype=self.dtype_policy,
            name=name,
            **kwargs,
        )

    def call(
        self, features: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict for every anchor.

        Args:
            features: {"P2": (B, h, w, C), ...}.

        Returns:
            objectness logits {"P2": (B, h * w * anchors), ...} and anchor deltas
            {"P2": (B, h * w * anchors, 4), ...} in (dx, dy, dw, dh).
        """
        objectness_logits, anchor_deltas = {}, {}
        for name, hidden in features.items():
            cells = hidden.shape[1] * hidden.shape[2]
            for conv in self.convs:
                hidden = convolve(conv, hidden)
            objectness_logits[name] = ops.reshape(
                self.objectness(hidden), (-1, cells * self.num_anchors)
            )
            anchor_deltas[name] = ops.reshape(
                self.deltas(hidden), (-1, cells * self.num_anchors, 4)
            )
        return objectness_logits, anchor_deltas

    def compute_output_shape(
        self, input_shape: dict[str, Shape]
    ) -> tuple[dict[str, Shape], dict[str, Shape]]:
        """Count the anchors of each level."""
        number = {
            name: (shape[0], shape[1] * shape[2] * self.num_anchors)
            for name, shape in input_shape.items()
        }
        return number, {name: (*shape, 4) for name, shape in number.items()}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_anchors": self.num_anchors,
            "channels": self.channels,
            "num_convs": self.num_convs,
        }
