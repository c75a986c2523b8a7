"""Feature pyramid: strong features at every scale."""

from typing import Any

import keras
from keras import ops

from kvision.layers.hidden_convolutions import batch_normalization
from kvision.ops.minimal_filtering import convolve

__all__ = ["FeaturePyramid"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class FeaturePyramid(keras.layers.Layer):
    """Merge backbone features top-down into maps of equal width.

    Each level is projected to `channels`, receives the coarser level enlarged to its
    size, and is smoothed by a 3x3 convolution. One more level for the RPN is the
    coarsest one at every second cell.

    `FeaturePyramid(channels=256)({"C2": c2, "C3": c3, "C4": c4, "C5": c5})` returns
    the maps "P2" to "P6".

    Args:
        channels: width of the output maps.
        batch_norm: whether every convolution is followed by a batch normalisation and
            has no bias, as in torchvision's v2.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Lin et al. 2017, Feature Pyramid Networks; extra level and order of
    operations as in torchvision `ops/feature_pyramid_network.py`.
    """

    def __init__(
        self, channels: int = 256, batch_norm: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.batch_norm = batch_norm

    def build(self, input_shape: dict[str, Shape]) -> None:
        """Create a lateral and an output convolution for each level."""
        self.levels = sorted(int(name[1:]) for name in input_shape)
        self.laterals, self.outputs = [], []
        self.lateral_norms, self.output_norms = [], []
        for level in self.levels:
            lateral = self._convolution(1, f"lateral_{level}")
            lateral.build(input_shape[f"C{level}"])
            output = self._convolution(3, f"output_{level}")
            shape = (*input_shape[f"C{level}"][:3], self.channels)
            output.build(shape)
            self.laterals.append(lateral)
            self.outputs.append(output)
            if self.batch_norm:
                self.lateral_norms.append(self._norm(f"lateral_norm_{level}", shape))
                self.output_norms.append(self._norm(f"output_norm_{level}", shape))

    def _convolution(self, kernel_size: int, name: str) -> keras.layers.Conv2D:
        # He et al.'s uniform initialisation with slope 1, which torchvision uses here.
        initializer = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
        return keras.layers.Conv2D(
            self.channels,
            kernel_size,
            padding="same",
            use_bias=not self.batch_norm,
            kernel_initializer=initializer,
            dtype=self.dtype_policy,
            name=name,
        )

    def _norm(self, name: str, shape: Shape) -> keras.layers.BatchNormalization:
        norm = batch_normalization(name, self.dtype_policy)
        norm.build(shape)
        return norm

    def call(
        self, features: dict[str, Tensor], training: bool | None = None
    ) -> dict[str, Tensor]:
        """Merge {"C2": (B, h, w, C), ...} into {"P2": (B, h, w, channels), ...}."""
        merged = None
        outputs = {}
        for i, level in reversed(list(enumerate(self.levels))):
            projected = self.laterals[i](features[f"C{level}"])
            if self.batch_norm:
                projected = self.lateral_norms[i](projected, training=training)
            merged = (
                projected
                if merged is None
                else projected + _enlarge(merged, projected.shape[1:3])
            )
            smoothed = convolve(self.outputs[i], merged)
            if self.batch_norm:
                smoothed = self.output_norms[i](smoothed, training=training)
            outputs[f"P{level}"] = smoothed
        top = self.levels[-1]
        outputs[f"P{top + 1}"] = outputs[f"P{top}"][:, ::2, ::2]
        return {name: outputs[name] for name in sorted(outputs)}

    def compute_output_shape(self, input_shape: dict[str, Shape]) -> dict[str, Shape]:
        """Give each level the input's grid; the extra one half of the coarsest."""
        shapes = {
            f"P{name[1:]}": (*shape[:3], self.channels)
            for name, shape in sorted(input_shape.items())
        }
        top = max(int(name[1:]) for name in input_shape)
        batch, *grid, channels = shapes[f"P{top}"]
        half = (None if size is None else (size + 1) // 2 for size in grid)
        shapes[f"P{top + 1}"] = (batch, *half, channels)
        return shapes

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "channels": self.channels,
            "batch_norm": self.batch_norm,
        }


def _enlarge(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat each cell twice along both axes and cut what is too much.

    Maps are halved with rounding up, so that two cells always cover the finer map.
    """
    doubled = ops.repeat(ops.repeat(features, 2, axis=1), 2, axis=2)
    return doubled[:, : size[0], : size[1]]
