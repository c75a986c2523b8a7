"""Convolutions with standardised weights, and the group normalisation they need."""

from typing import Any

import keras
from keras import ops

__all__ = ["GroupNormalization", "StandardizedConv2D"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class StandardizedConv2D(keras.layers.Conv2D):
    """Convolution whose kernels have mean 0 and variance 1 for each output channel.

    Args:
        filters: output channels.
        kernel_size: as `keras.layers.Conv2D`.
        standardization_epsilon: added to the variance.
        deviation_epsilon: added to its square root; Google's hybrids have 1e-5 here and
            0 there.
        **kwargs: other arguments of `keras.layers.Conv2D`.

    Source: Qiao et al. 2019, Weight Standardization; timm, layers/std_conv.py:
    StdConv2dSame; google-research/vision_transformer, models_resnet.py:
    weight_standardize.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        standardization_epsilon: float = 1e-8,
        deviation_epsilon: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self.standardization_epsilon = standardization_epsilon
        self.deviation_epsilon = deviation_epsilon

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Convolve with the standardised kernel."""
        values = ops.cast(kernel, "float32")
        mean, variance = ops.moments(values, axes=(0, 1, 2), keepdims=True)
        deviation = ops.sqrt(variance + self.standardization_epsilon)
        values = (values - mean) / (deviation + self.deviation_epsilon)
        return super().convolution_op(inputs, ops.cast(values, inputs.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "standardization_epsilon": self.standardization_epsilon,
            "deviation_epsilon": self.deviation_epsilon,
        }


@keras.saving.register_keras_serializable("kvision")
class GroupNormalization(keras.layers.Layer):
    """Normalise groups of channels, in float32 and in four dimensions.

    (Keras' own makes tensors of five dimensions, which delegates of TFLite refuse.)

    Args:
        groups: how many.
        epsilon: added to the variance.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if at build time the groups do not divide the channels.

    Source: Wu and He 2018, Group Normalization, equation 7.
    """

    def __init__(self, groups: int = 32, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape: Shape) -> None:
        """Create scale and shift."""
        channels = input_shape[-1]
        if channels % self.groups:
            raise ValueError(
                f"groups must divide the {channels} channels. Received: {self.groups}"
            )
        self.gamma = self.add_weight(
            shape=(channels,), initializer="ones", name="gamma"
        )
        self.beta = self.add_weight(shape=(channels,), initializer="zeros", name="beta")

    def call(self, inputs: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        _, height, width, channels = inputs.shape
        grouped = (-1, height * width, self.groups, channels // self.groups)
        values = ops.reshape(ops.cast(inputs, "float32"), grouped)
        mean, variance = ops.moments(values, axes=(1, 3), keepdims=True)
        values = (values - mean) * ops.rsqrt(variance + self.epsilon)
        values = ops.reshape(values, (-1, height, width, channels))
        values = values * ops.cast(self.gamma, "float32")
        values = values + ops.cast(self.beta, "float32")
        return ops.cast(values, inputs.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Keep the shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}
