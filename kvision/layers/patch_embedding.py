"""From pixels to patches, and tokens that are no patch."""

from typing import Any

import keras
from keras import ops

from kvision.layers.normalization import LayerNormalization
from kvision.ops.fusing import plain_graph_on_processor
from kvision.ops.rows import by_rows, product_in_training

__all__ = ["ClassToken", "PatchEmbedding"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class PatchEmbedding(keras.layers.Layer):
    """Map each patch of an image to a vector.

    Sides that are no multiple of the patch are filled up with zeros at the bottom and
    right. The form decides how, not what: a convolution whose stride is its kernel, or
    pixels of each patch laid in a row and one matrix product.

    Args:
        embed_dim: D.
        patch_size: (height, width) in pixels, or one number for both.
        form: "conv" or "dense".
        use_bias: whether a bias is added.
        epsilon: of a layer normalisation at the end; None for none.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: for an unknown form or a patch of no pixels.

    Source: Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, equation 1.
    """

    def __init__(
        self,
        embed_dim: int,
        patch_size: int | tuple[int, int] = 16,
        form: str = "conv",
        use_bias: bool = True,
        epsilon: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        sides = (patch_size,) * 2 if isinstance(patch_size, int) else tuple(patch_size)
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(
                "patch_size must be a number or (height, width), at least 1 pixel. "
                f"Received: {patch_size}"
            )
        if form not in ("conv", "dense"):
            raise ValueError(f'form must be "conv" or "dense". Received: {form!r}')
        self.embed_dim = embed_dim
        self.patch_size = sides
        self.form = form
        self.use_bias = use_bias
        self.epsilon = epsilon
        self.norm = None
        if epsilon is not None:
            self.norm = LayerNormalization(
                epsilon=epsilon, dtype=self.dtype_policy, name="norm"
            )

    def build(self, input_shape: Shape) -> None:
        """Create kernel, bias and normalisation."""
        pixels = self.patch_size[0] * self.patch_size[1] * input_shape[-1]
        self.kernel = self.add_weight(
            shape=(*self.patch_size, input_shape[-1], self.embed_dim),
            # As a dense layer on the pixels of a patch would be begun with.
            initializer=keras.initializers.TruncatedNormal(stddev=pixels**-0.5),
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.embed_dim,), initializer="zeros", name="bias"
            )
        if self.norm is not None:
            self.norm.build((None, None, None, self.embed_dim))

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        """Map (B, H, W, C) to a grid (B, ceil(H / p), ceil(W / p), D)."""
        images = self._filled_up(images)
        kernel = ops.cast(self.kernel, images.dtype)
        bias = None if self.bias is None else ops.cast(self.bias, images.dtype)
        if training and plain_graph_on_processor():
            # The gradient of such a convolution takes longer.
            grid = self._product_in_training(images, kernel, bias)
        else:
            grid = self._grid(images, kernel)
            grid = grid if bias is None else grid + bias
        return grid if self.norm is None else self.norm(grid, training=training)

    def _filled_up(self, images: Tensor) -> Tensor:
        missing = [
            -size % side
            for size, side in zip(images.shape[1:3], self.patch_size, strict=True)
        ]
        if not any(missing):
            return images
        return ops.pad(images, [(0, 0), (0, missing[0]), (0, missing[1]), (0, 0)])

    def _grid(self, images: Tensor, kernel: Tensor) -> Tensor:
        if self.form == "conv":
            return ops.conv(images, kernel, self.patch_size, "valid")
        return ops.matmul(self._pixels(images), self._flat(kernel))

    def _product_in_training(
        self, images: Tensor, kernel: Tensor, bias: Tensor | None
    ) -> Tensor:
        parameters = (
            [self._flat(kernel)] if bias is None else [self._flat(kernel), bias]
        )
        return by_rows(
            lambda rows: product_in_training(rows, *parameters), self._pixels(images)
        )

    def _flat(self, kernel: Tensor) -> Tensor:
        return ops.reshape(kernel, (-1, self.embed_dim))

    def _pixels(self, images: Tensor) -> Tensor:
        """Lay out the pixels of each patch; never more than four dimensions."""
        _, height, width, channels = images.shape
        rows, columns = height // self.patch_size[0], width // self.patch_size[1]
        strips = (-1, self.patch_size[0], columns, self.patch_size[1] * channels)
        patches = ops.transpose(ops.reshape(images, strips), (0, 2, 1, 3))
        pixels = self.patch_size[0] * self.patch_size[1] * channels
        return ops.reshape(patches, (-1, rows, columns, pixels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the grid."""
        batch, height, width, _ = input_shape
        rows, columns = self.patch_size
        return (batch, -(-height // rows), -(-width // columns), self.embed_dim)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "embed_dim": self.embed_dim,
            "patch_size": self.patch_size,
            "form": self.form,
            "use_bias": self.use_bias,
            "epsilon": self.epsilon,
        }


@keras.saving.register_keras_serializable("kvision")
class ClassToken(keras.layers.Layer):
    """Put learned tokens before the others: class, distillation or register tokens.

    Args:
        num_tokens: how many.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Dosovitskiy et al. 2021, equation 1; Touvron et al. 2021, DeiT, section 4;
    Darcet et al. 2024, Vision Transformers Need Registers.
    """

    def __init__(self, num_tokens: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_tokens < 1:
            raise ValueError(f"num_tokens must be 1 or more. Received: {num_tokens}")
        self.num_tokens = num_tokens

    def build(self, input_shape: Shape) -> None:
        """Create the tokens."""
        self.tokens = self.add_weight(
            shape=(1, self.num_tokens, input_shape[-1]),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="tokens",
        )

    def call(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) to (B, num_tokens + N, D)."""
        # A sum takes the size of the batch from `tokens`; delegates of TFLite refuse
        # the op that would repeat the row.
        rows = ops.zeros_like(tokens[:, :1]) + ops.cast(self.tokens, tokens.dtype)
        return ops.concatenate([rows, tokens], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the longer sequence."""
        return (input_shape[0], input_shape[1] + self.num_tokens, input_shape[2])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "num_tokens": self.num_tokens}
