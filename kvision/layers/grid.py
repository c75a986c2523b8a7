"""Tokens laid out as the grid of patches they are."""

from typing import Any

import keras
from keras import ops

__all__ = ["TokensToGrid"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class TokensToGrid(keras.layers.Layer):
    """Drop the prefix tokens and lay the patches out in rows and columns.

    Args:
        num_prefix_tokens: tokens before the patches.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, num_prefix_tokens: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_prefix_tokens = num_prefix_tokens

    def call(self, tokens: Tensor, grid: Tensor) -> Tensor:
        """Map (B, P + h * w, D) to (B, h, w, D); h and w are those of `grid`."""
        patches = tokens[:, self.num_prefix_tokens :]
        return ops.reshape(patches, (-1, *grid.shape[1:3], tokens.shape[-1]))

    def compute_output_shape(self, tokens_shape: Shape, grid_shape: Shape) -> Shape:
        """Return (B, h, w, D)."""
        return (tokens_shape[0], *grid_shape[1:3], tokens_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "num_prefix_tokens": self.num_prefix_tokens}
