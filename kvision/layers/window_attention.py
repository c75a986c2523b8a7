"""Self-attention within windows of a grid."""

from typing import Any

import keras
from keras import ops

from kvision.ops.attention import attention_scores, merge_heads, split_heads
from kvision.ops.rows import dense_by_rows
from kvision.ops.windows import bands, merge_windows, partition_windows

__all__ = ["WindowAttention"]

Tensor = Any
Shape = tuple[int | None, ...]
Size = tuple[int, int]


@keras.saving.register_keras_serializable("kvision")
class WindowAttention(keras.layers.Layer):
    """Locally grouped self-attention: cells attend to those of their window.

    Windows at the bottom and right are cut where the grid ends: the numbers of windows
    that are filled up and whose filling is masked, without the work for it and without
    the large negative numbers of a mask, which leave an 8-bit model no resolution.

    Args:
        num_heads: H, which divides the width of the grid.
        window_size: cells of a side of a window.
        use_bias: whether queries, keys and values have a bias.
        attention_dropout: share of the scores that training drops.
        dropout: share of the outputs that training drops.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if a window has no cells, or at build time H does not divide the
            width.

    Source: Chu et al. 2021, Twins, section 3.2; Meituan-AutoML/Twins, gvt.py:
    GroupAttention.
    """

    def __init__(
        self,
        num_heads: int,
        window_size: int = 7,
        use_bias: bool = True,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if window_size < 1:
            raise ValueError(f"window_size must be 1 or more. Received: {window_size}")
        self.num_heads = num_heads
        self.window_size = window_size
        self.use_bias = use_bias
        self.attention_dropout = attention_dropout
        self.dropout = dropout
        self.score_drop, self.output_drop = (
            keras.layers.Dropout(rate, dtype=self.dtype_policy)
            for rate in (attention_dropout, dropout)
        )

    def build(self, grid_shape: Shape) -> None:
        """Create the two products."""
        width = grid_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"num_heads must divide the width of the grid, {width}. Received: "
                f"{self.num_heads}"
            )
        self.qkv, self.projection = (
            keras.layers.Dense(
                units,
                use_bias=use_bias,
                kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
                dtype=self.dtype_policy,
                name=name,
            )
            for name, units, use_bias in (
                ("qkv", 3 * width, self.use_bias),
                ("projection", width, True),
            )
        )
        self.qkv.build(grid_shape)
        self.projection.build(grid_shape)

    def call(
        self,
        grid: Tensor,
        return_attention_scores: bool = False,
        training: bool | None = None,
    ) -> Any:
        """Let the cells of a grid (B, h, w, D) attend to their windows.

        Args:
            grid: (B, h, w, D) tensor.
            return_attention_scores: whether to return the scores too.
            training: whether to drop.

        Returns:
            (B, h, w, D) tensor; with scores, a pair with (B, H, h * w, s * s) in
            [0, 1]: for each cell the cells of its window of side s, row by row, 0 where
            there is none.
        """
        packed = dense_by_rows(self.qkv, grid, training)
        mixed, scores = [], []
        for rows in bands(grid.shape[1], self.window_size):
            parts = [
                self._attend(packed[:, rows, columns], training)
                for columns in bands(grid.shape[2], self.window_size)
            ]
            mixed.append(_joined([part for part, _ in parts], axis=2))
            if return_attention_scores:
                scores.append(_joined([self._laid_out(*p) for _, p in parts], axis=2))
        mixed = _joined(mixed, axis=1)
        outputs = dense_by_rows(self.projection, mixed, training)
        outputs = self.output_drop(outputs, training=training)
        if not return_attention_scores:
            return outputs
        return outputs, self._by_head(_joined(scores, axis=1))

    def _attend(
        self, packed: Tensor, training: bool | None
    ) -> tuple[Tensor, tuple[Tensor, Size]]:
        """Attend in a part of the grid where all windows are of one size."""
        size = packed.shape[1:3]
        sides = self._sides(size)
        windows = partition_windows(packed, sides)
        queries, keys, values = split_heads(windows, self.num_heads, 3)
        scores = attention_scores(queries, keys)
        dropped = self.score_drop(scores, training=training)
        mixed = merge_heads(ops.matmul(dropped, values))
        return merge_windows(mixed, sides, size), (scores, size)

    def _sides(self, size: Size) -> Size:
        """Return (height, width) of windows in a part that they fill or are cut to."""
        return min(self.window_size, size[0]), min(self.window_size, size[1])

    def _laid_out(self, scores: Tensor, size: Size) -> Tensor:
        """Bring scores (B * n, H, N, N) of windows to a grid (B, h, w, H * s * s)."""
        sides = self._sides(size)
        cells, side = sides[0] * sides[1], self.window_size
        keys = ops.reshape(scores, (-1, *sides))
        keys = ops.pad(keys, [(0, 0), (0, side - sides[0]), (0, side - sides[1])])
        rows = ops.reshape(keys, (-1, self.num_heads, cells, side * side))
        return merge_windows(merge_heads(rows), sides, size)

    def _by_head(self, grid: Tensor) -> Tensor:
        _, rows, columns, _ = grid.shape
        cells = (-1, rows * columns, self.num_heads, self.window_size**2)
        return ops.transpose(ops.reshape(grid, cells), (0, 2, 1, 3))

    def compute_output_spec(
        self,
        grid: Any,
        return_attention_scores: bool = False,
        training: bool | None = None,
    ) -> Any:
        """Promise the shape of the grid, and that of the scores if asked for."""
        outputs = keras.KerasTensor(grid.shape, self.compute_dtype)
        if not return_attention_scores:
            return outputs
        batch, rows, columns, _ = grid.shape
        shape = (batch, self.num_heads, rows * columns, self.window_size**2)
        return outputs, keras.KerasTensor(shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "window_size": self.window_size,
            "use_bias": self.use_bias,
            "attention_dropout": self.attention_dropout,
            "dropout": self.dropout,
        }


def _joined(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=axis)
