"""Where a patch is: learned codes, waves, distances, and a convolution."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kvision.ops.positions import relative_positions, sincos_1d, sincos_2d
from kvision.ops.resampling import INTERPOLATIONS, resize_grid, resize_matrix

__all__ = [
    "PositionEmbedding",
    "PositionEncodingGenerator",
    "RelativePositionBias",
    "SinCosPositionEmbedding1D",
    "SinCosPositionEmbedding2D",
]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class PositionEmbedding(keras.layers.Layer):
    """Add a learned code to each token.

    The table has a row for each prefix token and one for each cell of a grid. Where the
    input's grid is another than the table's, the codes in between are a product with a
    constant matrix.

    Args:
        num_prefix_tokens: tokens before the patches, which have codes of their own.
        table_grid: (height, width) of the table; None for that of the input.
        interpolation: how the table is brought to another grid: here, and in
            `kvision.models.with_image_size`; see `kvision.ops.resampling`.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: for an unknown interpolation.

    Source: Dosovitskiy et al. 2021, equation 1 and section 3.2.
    """

    def __init__(
        self,
        num_prefix_tokens: int = 0,
        table_grid: tuple[int, int] | None = None,
        interpolation: str = "bicubic_antialias",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}. Received: "
                f"{interpolation!r}"
            )
        self.num_prefix_tokens = num_prefix_tokens
        self.table_grid = None if table_grid is None else tuple(table_grid)
        self.interpolation = interpolation

    def build(self, tokens_shape: Shape, grid_shape: Shape) -> None:
        """Create the table."""
        self.grid = (grid_shape[1], grid_shape[2])
        rows, columns = self.table_grid or self.grid
        self.table = self.add_weight(
            shape=(1, self.num_prefix_tokens + rows * columns, tokens_shape[-1]),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="table",
        )

    def call(self, tokens: Tensor, grid: Tensor) -> Tensor:
        """Add codes to tokens (B, P + h * w, D); `grid` (B, h, w, ...) tells h, w."""
        return tokens + ops.cast(self.codes(), tokens.dtype)

    def codes(self) -> Tensor:
        """Return what is added, (1, P + h * w, D)."""
        if self.table_grid in (None, self.grid):
            return ops.convert_to_tensor(self.table)
        prefix = self.table[:, : self.num_prefix_tokens]
        matrices = [
            resize_matrix(old, new, self.interpolation)
            for old, new in zip(self.table_grid, self.grid, strict=True)
        ]
        matrix = np.kron(*matrices).astype(self.variable_dtype)
        cells = ops.matmul(matrix, self.table[0, self.num_prefix_tokens :])
        return ops.concatenate([prefix, ops.expand_dims(cells, 0)], axis=1)

    def carry_over(self, source: "PositionEmbedding") -> None:
        """Take the codes of the same layer of a model for images of another size.

        Args:
            source: the layer to resample from; both are built.
        """
        table = ops.convert_to_numpy(source.table)[0]
        prefix, cells = np.split(table, [self.num_prefix_tokens])
        old = source.table_grid or source.grid
        grid = cells.reshape(*old, -1)
        new = self.table_grid or self.grid
        if new != old:
            grid = resize_grid(grid, new, self.interpolation)
        rows = grid.reshape(-1, table.shape[-1])
        self.table.assign(np.concatenate([prefix, rows])[None])

    def compute_output_shape(self, tokens_shape: Shape, grid_shape: Shape) -> Shape:
        """Keep the shape of the tokens."""
        return tokens_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_prefix_tokens": self.num_prefix_tokens,
            "table_grid": self.table_grid,
            "interpolation": self.interpolation,
        }


@keras.saving.register_keras_serializable("kvision")
class SinCosPositionEmbedding1D(keras.layers.Layer):
    """Add waves to a sequence; the first token, such as a class token, is at place 0.

    Args:
        temperature: of the slowest wave.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Vaswani et al. 2017, Attention Is All You Need, section 3.5.
    """

    def __init__(self, temperature: float = 10000.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.temperature = temperature

    def call(self, tokens: Tensor) -> Tensor:
        """Add codes to tokens (B, N, D), D even."""
        codes = sincos_1d(tokens.shape[1], tokens.shape[2], self.temperature)
        return tokens + ops.cast(codes, tokens.dtype)

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        """Keep the shape."""
        return tokens_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "temperature": self.temperature}


@keras.saving.register_keras_serializable("kvision")
class SinCosPositionEmbedding2D(keras.layers.Layer):
    """Add waves along x and y to patches; prefix tokens get none.

    Args:
        num_prefix_tokens: tokens before the patches.
        temperature: of the slowest wave.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: google-research/big_vision, models/vit.py: posemb_sincos_2d.
    """

    def __init__(
        self, num_prefix_tokens: int = 0, temperature: float = 10000.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_prefix_tokens = num_prefix_tokens
        self.temperature = temperature

    def call(self, tokens: Tensor, grid: Tensor) -> Tensor:
        """Add codes to tokens (B, P + h * w, D); `grid` (B, h, w, ...) tells h, w."""
        _, rows, columns, *_ = grid.shape
        codes = sincos_2d(rows, columns, tokens.shape[-1], self.temperature)
        codes = np.pad(codes, [(self.num_prefix_tokens, 0), (0, 0)])
        return tokens + ops.cast(codes, tokens.dtype)

    def compute_output_shape(self, tokens_shape: Shape, grid_shape: Shape) -> Shape:
        """Keep the shape of the tokens."""
        return tokens_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_prefix_tokens": self.num_prefix_tokens,
            "temperature": self.temperature,
        }


@keras.saving.register_keras_serializable("kvision")
class RelativePositionBias(keras.layers.Layer):
    """Learn how much a head attends over each offset between two patches.

    Args:
        num_heads: H.
        num_prefix_tokens: tokens before the patches; to, from and among them there is
            one number each for a head.
        interpolation: how the table is brought to another grid in
            `kvision.models.with_image_size`.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Liu et al. 2021, Swin Transformer, equation 4; Bao et al. 2022, BEiT.
    """

    def __init__(
        self,
        num_heads: int,
        num_prefix_tokens: int = 0,
        interpolation: str = "bicubic_antialias",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.num_prefix_tokens = num_prefix_tokens
        self.interpolation = interpolation

    def build(self, grid_shape: Shape) -> None:
        """Create the table."""
        self.grid = (grid_shape[1], grid_shape[2])
        rows, columns = self._offsets()
        prefix = 3 if self.num_prefix_tokens else 0
        self.table = self.add_weight(
            shape=(rows * columns + prefix, self.num_heads),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="table",
        )

    def _offsets(self) -> tuple[int, int]:
        return 2 * self.grid[0] - 1, 2 * self.grid[1] - 1

    def call(self, grid: Tensor) -> Tensor:
        """Return the bias (1, H, P + N, P + N) of a grid (B, h, w, ...) of N cells."""
        rows, columns = self.grid
        numbers = relative_positions(rows, columns, self.num_prefix_tokens)
        # Along the second axis: rows of the first would make a sparse gradient, which
        # optimizers clip row by row.
        bias = ops.take(ops.transpose(self.table), numbers.reshape(-1), axis=1)
        bias = ops.reshape(bias, (self.num_heads, *numbers.shape))
        return ops.cast(ops.expand_dims(bias, 0), self.compute_dtype)

    def carry_over(self, source: "RelativePositionBias") -> None:
        """Take the table of the same layer of a model for images of another size.

        Args:
            source: the layer to resample from; both are built.
        """
        table = ops.convert_to_numpy(source.table)
        rows, columns = source._offsets()
        offsets, prefix = np.split(table, [rows * columns])
        grid = offsets.reshape(rows, columns, -1)
        if source.grid != self.grid:
            grid = resize_grid(grid, self._offsets(), self.interpolation)
        self.table.assign(np.concatenate([grid.reshape(-1, self.num_heads), prefix]))

    def compute_output_shape(self, grid_shape: Shape) -> Shape:
        """Return the shape of the bias."""
        length = self.num_prefix_tokens + grid_shape[1] * grid_shape[2]
        return (1, self.num_heads, length, length)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_prefix_tokens": self.num_prefix_tokens,
            "interpolation": self.interpolation,
        }


@keras.saving.register_keras_serializable("kvision")
class PositionEncodingGenerator(keras.layers.Layer):
    """Add a depthwise 3x3 convolution of a grid to it: zeros at the edge tell places.

    Args:
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Chu et al. 2021, Conditional Positional Encodings for Vision Transformers;
    Meituan-AutoML/Twins, gvt.py: PosCNN.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.convolution = keras.layers.DepthwiseConv2D(
            3, padding="same", dtype=self.dtype_policy, name="convolution"
        )

    def build(self, grid_shape: Shape) -> None:
        """Create the convolution."""
        self.convolution.build(grid_shape)

    def call(self, grid: Tensor) -> Tensor:
        """Map (B, h, w, D) to the same shape."""
        return grid + self.convolution(grid)

    def compute_output_shape(self, grid_shape: Shape) -> Shape:
        """Keep the shape."""
        return grid_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return super().get_config()
