"""Normalisation of input images, of batches with fixed statistics, of tokens."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kvision.ops.rows import (
    by_rows,
    normalize_rows,
    normalize_rows_in_training,
)
from kvision.ops.tracing import tracing_for_inference

__all__ = ["FrozenBatchNormalization", "ImageNormalization", "LayerNormalization"]

Tensor = Any


@keras.saving.register_keras_serializable("kvision")
class ImageNormalization(keras.layers.Layer):
    """Bring images in 0-255 to the range a backbone was trained on.

    Args:
        mean: value of each channel (or one for all) to subtract, in 0-255.
        std: value of each channel (or one for all) to divide by, in 0-255.
        reverse_channels: whether the backbone wants BGR; `mean` and `std` then are in
            BGR order too.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if a standard deviation is not positive, or if at build time the
            number of channels differs.
    """

    def __init__(
        self,
        mean: Sequence[float] | float,
        std: Sequence[float] | float,
        reverse_channels: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mean = [float(value) for value in _as_sequence(mean)]
        self.std = [float(value) for value in _as_sequence(std)]
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive. Received: std={std}")
        self.reverse_channels = reverse_channels

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Check the number of channels."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, input_shape[-1]):
                raise ValueError(
                    f"{name} must have 1 value or one for each of the "
                    f"{input_shape[-1]} channels. Received: {name}={values}"
                )

    def call(self, images: Tensor) -> Tensor:
        """Normalise images (B, H, W, C) in 0-255; same shape, compute dtype."""
        if self.reverse_channels:
            images = ops.flip(images, axis=-1)
        # Multiplied, not divided: the constant folds into the first convolution.
        scale = [1.0 / value for value in self.std]
        shift = [-mean / std for mean, std in _pairs(self.mean, self.std)]
        dtype = self.compute_dtype
        images = ops.cast(images, dtype)  # Keras casts floats only, not uint8
        return images * ops.convert_to_tensor(
            scale, dtype=dtype
        ) + ops.convert_to_tensor(shift, dtype=dtype)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Keep the shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "mean": self.mean,
            "std": self.std,
            "reverse_channels": self.reverse_channels,
        }


def _as_sequence(value: Sequence[float] | float) -> Sequence[float]:
    return [value] if isinstance(value, int | float) else value


def _pairs(mean: Sequence[float], std: Sequence[float]) -> list[tuple[float, float]]:
    length = max(len(mean), len(std))
    return list(
        zip(
            list(mean) * (length // len(mean)),
            list(std) * (length // len(std)),
            strict=True,
        )
    )


@keras.saving.register_keras_serializable("kvision")
class FrozenBatchNormalization(keras.layers.Layer):
    """Batch normalisation whose statistics and affine parameters never change.

    With the batches of two or four images a detector trains on, statistics of the
    batch are worse than those of pretraining. Weights have the names and shapes of
    `keras.layers.BatchNormalization`, so those of one fit the other. As four constants
    it is one multiplication and one addition, forward and backward.

    Args:
        epsilon: added to the variance.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "trainable": False})
        self.epsilon = epsilon
        self._folded = False

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the four non-trainable vectors."""
        shape = (input_shape[-1],)
        for name, initializer in (
            ("gamma", "ones"),
            ("beta", "zeros"),
            ("moving_mean", "zeros"),
            ("moving_variance", "ones"),
        ):
            weight = self.add_weight(
                shape=shape, initializer=initializer, name=name, trainable=False
            )
            setattr(self, name, weight)

    def call(self, inputs: Tensor, training: Any = None, mask: Any = None) -> Tensor:
        """Normalise (..., C) features; the signature is BatchNormalization's."""
        scale, shift = self._scale_and_shift()
        if not self._folded:
            inputs = inputs * ops.cast(scale, inputs.dtype)
        # `ops.add` makes it a bias, which TensorFlow fuses with the convolution before
        # it and the activation behind it.
        return ops.add(inputs, ops.cast(shift, inputs.dtype))

    def fold_into(self, convolution: keras.layers.Layer) -> None:
        """Move the multiplication into the kernel of the convolution before this.

        What the two compute stays the same; their weights are no longer those of the
        source.

        Args:
            convolution: layer with a `kernel` and perhaps a `bias`, without activation,
                whose output nothing else reads.
        """
        scale, shift = self._scale_and_shift()
        kernel = ops.cast(convolution.kernel, "float32")
        if isinstance(convolution, keras.layers.DepthwiseConv2D):
            kernel = kernel * ops.reshape(scale, kernel.shape[-2:])
        else:
            kernel = kernel * scale
        convolution.kernel.assign(kernel)
        if convolution.bias is not None:
            convolution.bias.assign(ops.cast(convolution.bias, "float32") * scale)
        self.gamma.assign(ops.ones_like(self.gamma))
        self.beta.assign(shift)
        self.moving_mean.assign(ops.zeros_like(self.moving_mean))
        self.moving_variance.assign(ops.ones_like(scale) - self.epsilon)
        self._folded = True

    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        mean, variance, gamma, beta = (
            ops.cast(weight, "float32")
            for weight in (
                self.moving_mean,
                self.moving_variance,
                self.gamma,
                self.beta,
            )
        )
        scale = gamma * ops.rsqrt(variance + self.epsilon)
        return scale, beta - mean * scale

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Keep the shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("kvision")
class LayerNormalization(keras.layers.LayerNormalization):
    """Keras' normalisation over the last axis, with one kernel where TensorFlow has it.

    Args:
        epsilon: added to the variance.
        **kwargs: other arguments of `keras.layers.LayerNormalization`.
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(epsilon=epsilon, **kwargs)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Normalise (..., D) features."""
        if not (tracing_for_inference() or training):
            return super().call(inputs)
        normalize = normalize_rows_in_training if training else normalize_rows
        inputs = ops.cast(inputs, self.compute_dtype)
        gamma, beta = self.gamma, self.beta
        return by_rows(lambda rows: normalize(rows, gamma, beta, self.epsilon), inputs)
