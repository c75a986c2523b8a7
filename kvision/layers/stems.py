"""Convolutions in the place of a patch embedding."""

from typing import Any

import keras

from kvision.layers.normalization import LayerNormalization

__all__ = ["ConvStem", "PatchifyStem"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class ConvStem(keras.layers.Layer):
    """Halve an image by 3x3 convolutions, each twice as wide, then one of 1x1.

    Vision transformers that begin so train more steadily; one block fewer makes up for
    the arithmetic.

    Args:
        embed_dim: D, the width at the end.
        num_halvings: 4 for patches of 16 pixels; the first is D / 2^(num_halvings - 1)
            wide.
        momentum: of the averages of batch normalisation.
        epsilon: of batch normalisation.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if D cannot be halved so often.

    Source: Xiao et al. 2021, Early Convolutions Help Transformers See Better, section 4
    and appendix A.
    """

    def __init__(
        self,
        embed_dim: int,
        num_halvings: int = 4,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_halvings < 1 or embed_dim % 2 ** (num_halvings - 1):
            raise ValueError(
                "embed_dim must be a multiple of 2^(num_halvings - 1). Received: "
                f"embed_dim={embed_dim}, num_halvings={num_halvings}"
            )
        self.embed_dim = embed_dim
        self.num_halvings = num_halvings
        self.momentum = momentum
        self.epsilon = epsilon
        policy = self.dtype_policy
        self.parts: list[keras.layers.Layer] = []
        for step in range(num_halvings):
            width = embed_dim >> (num_halvings - 1 - step)
            self.parts += [
                # Not "same", which would pad the other side than the source does.
                keras.layers.ZeroPadding2D(1, dtype=policy),
                keras.layers.Conv2D(
                    width, 3, 2, use_bias=False, dtype=policy, name=f"conv_{step}"
                ),
                keras.layers.BatchNormalization(
                    momentum=momentum, epsilon=epsilon, dtype=policy, name=f"bn_{step}"
                ),
                keras.layers.ReLU(dtype=policy),
            ]
        self.parts.append(
            keras.layers.Conv2D(embed_dim, 1, dtype=policy, name="projection")
        )

    def build(self, input_shape: Shape) -> None:
        """Create the convolutions."""
        for part in self.parts:
            part.build(input_shape)
            input_shape = part.compute_output_shape(input_shape)

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        """Map (B, H, W, C) to a grid (B, ceil(H / 2^n), ceil(W / 2^n), D)."""
        for part in self.parts:
            normalises = isinstance(part, keras.layers.BatchNormalization)
            images = part(images, training=training) if normalises else part(images)
        return images

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the grid."""
        stride = 2**self.num_halvings
        batch, height, width, _ = input_shape
        return (batch, -(-height // stride), -(-width // stride), self.embed_dim)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "embed_dim": self.embed_dim,
            "num_halvings": self.num_halvings,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


@keras.saving.register_keras_serializable("kvision")
class PatchifyStem(keras.layers.Layer):
    """Begin as ConvNeXt does: 4x4 patches, layer normalisation; then join patches.

    Args:
        embed_dim: D.
        stem_dim: width of the 4x4 patches.
        patch_size: pixels of a side of the patches at the end, a multiple of 4.
        epsilon: of the layer normalisation.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if `patch_size` is no multiple of 4.

    Source: Liu et al. 2022, A ConvNet for the 2020s, section 2.2.
    """

    def __init__(
        self,
        embed_dim: int,
        stem_dim: int = 96,
        patch_size: int = 16,
        epsilon: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if patch_size % 4 or patch_size < 4:
            raise ValueError(
                f"patch_size must be a multiple of 4. Received: {patch_size}"
            )
        self.embed_dim = embed_dim
        self.stem_dim = stem_dim
        self.patch_size = patch_size
        self.epsilon = epsilon
        policy, rest = self.dtype_policy, patch_size // 4
        self.patches = keras.layers.Conv2D(
            stem_dim, 4, 4, padding="same", dtype=policy, name="patches"
        )
        self.norm = LayerNormalization(epsilon=epsilon, dtype=policy, name="norm")
        self.projection = keras.layers.Conv2D(
            embed_dim, rest, rest, padding="same", dtype=policy, name="projection"
        )

    def build(self, input_shape: Shape) -> None:
        """Create the convolutions."""
        for part in (self.patches, self.norm, self.projection):
            part.build(input_shape)
            input_shape = part.compute_output_shape(input_shape)

    def call(self, images: Tensor) -> Tensor:
        """Map (B, H, W, C) to a grid (B, ceil(H / p), ceil(W / p), D)."""
        return self.projection(self.norm(self.patches(images)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the grid."""
        for part in (self.patches, self.projection):
            input_shape = part.compute_output_shape(input_shape)
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "embed_dim": self.embed_dim,
            "stem_dim": self.stem_dim,
            "patch_size": self.patch_size,
            "epsilon": self.epsilon,
        }
