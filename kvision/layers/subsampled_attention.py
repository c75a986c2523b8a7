"""Attention of all cells of a grid over a summary of it."""

from typing import Any

import keras
from keras import ops

from kvision.layers.patch_embedding import PatchEmbedding
from kvision.ops.attention import attention_scores, merge_heads, split_heads
from kvision.ops.rows import dense_by_rows

__all__ = ["SubsampledAttention"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class SubsampledAttention(keras.layers.Layer):
    """Global sub-sampled attention: keys and values are cells of a smaller grid.

    Grids that the reduction does not divide are filled up with zeros at the bottom and
    right before they are reduced, so that every cell is seen.

    Args:
        num_heads: H, which divides the width of the grid.
        reduction: r, side of the squares that one key stands for; 1 for all cells.
        use_bias: whether queries, keys and values have a bias.
        epsilon: of the layer normalisation after the reduction.
        attention_dropout: share of the scores that training drops.
        dropout: share of the outputs that training drops.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if `reduction` is below 1, or at build time H does not divide the
            width.

    Source: Wang et al. 2021, Pyramid Vision Transformer, equations 2 and 3; Chu et al.
    2021, Twins, section 3.2; Meituan-AutoML/Twins, gvt.py: Attention.
    """

    def __init__(
        self,
        num_heads: int,
        reduction: int = 1,
        use_bias: bool = True,
        epsilon: float = 1e-5,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if reduction < 1:
            raise ValueError(f"reduction must be 1 or more. Received: {reduction}")
        self.num_heads = num_heads
        self.reduction = reduction
        self.use_bias = use_bias
        self.epsilon = epsilon
        self.attention_dropout = attention_dropout
        self.dropout = dropout
        self.score_drop, self.output_drop = (
            keras.layers.Dropout(rate, dtype=self.dtype_policy)
            for rate in (attention_dropout, dropout)
        )

    def build(self, grid_shape: Shape) -> None:
        """Create the reduction and the products."""
        width = grid_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"num_heads must divide the width of the grid, {width}. Received: "
                f"{self.num_heads}"
            )
        self.reduce = None
        if self.reduction > 1:
            self.reduce = PatchEmbedding(
                width,
                self.reduction,
                epsilon=self.epsilon,
                dtype=self.dtype_policy,
                name="reduce",
            )
            self.reduce.build(grid_shape)
        self.query, self.key_value, self.projection = (
            keras.layers.Dense(
                units,
                use_bias=use_bias,
                kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
                dtype=self.dtype_policy,
                name=name,
            )
            for name, units, use_bias in (
                ("query", width, self.use_bias),
                ("key_value", 2 * width, self.use_bias),
                ("projection", width, True),
            )
        )
        for product in (self.query, self.key_value, self.projection):
            product.build((None, None, width))

    def call(
        self,
        grid: Tensor,
        return_attention_scores: bool = False,
        training: bool | None = None,
    ) -> Any:
        """Let the cells of a grid (B, h, w, D) attend to the reduced grid.

        Args:
            grid: (B, h, w, D) tensor.
            return_attention_scores: whether to return the scores too.
            training: whether to drop.

        Returns:
            (B, h, w, D) tensor; with scores, a pair with (B, H, h * w, M) in [0, 1],
            where M = ceil(h / r) * ceil(w / r).
        """
        tokens = _rows(grid)
        summary = tokens if self.reduce is None else _rows(self.reduce(grid))
        packed = dense_by_rows(self.query, tokens, training)
        (queries,) = split_heads(packed, self.num_heads, 1)
        packed = dense_by_rows(self.key_value, summary, training)
        keys, values = split_heads(packed, self.num_heads, 2)
        scores = attention_scores(queries, keys)
        dropped = self.score_drop(scores, training=training)
        mixed = merge_heads(ops.matmul(dropped, values))
        mixed = dense_by_rows(self.projection, mixed, training)
        outputs = ops.reshape(mixed, (-1, *grid.shape[1:]))
        outputs = self.output_drop(outputs, training=training)
        return (outputs, scores) if return_attention_scores else outputs

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
        keys = -(-rows // self.reduction) * -(-columns // self.reduction)
        shape = (batch, self.num_heads, rows * columns, keys)
        return outputs, keras.KerasTensor(shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "reduction": self.reduction,
            "use_bias": self.use_bias,
            "epsilon": self.epsilon,
            "attention_dropout": self.attention_dropout,
            "dropout": self.dropout,
        }


def _rows(grid: Tensor) -> Tensor:
    _, rows, columns, width = grid.shape
    return ops.reshape(grid, (-1, rows * columns, width))
