"""Self-attention of all tokens with all tokens."""

from typing import Any

import keras
from keras import ops

from kvision.layers.normalization import LayerNormalization
from kvision.ops.attention import attention_scores, merge_heads, split_heads
from kvision.ops.rows import dense_by_rows

__all__ = ["SelfAttention"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class SelfAttention(keras.layers.Layer):
    """Multi-head attention with one product for queries, keys and values.

    Args:
        num_heads: H, which divides the width of the tokens.
        use_bias: whether queries, keys and values have a bias.
        qk_norm_epsilon: epsilon of a layer normalisation of each head's queries and
            keys; None for none.
        attention_dropout: share of the scores that training drops.
        dropout: share of the outputs that training drops.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if at build time H does not divide the width.

    Source: Vaswani et al. 2017, section 3.2; Dehghani et al. 2023, ViT-22B, for the
    normalisation.
    """

    def __init__(
        self,
        num_heads: int,
        use_bias: bool = True,
        qk_norm_epsilon: float | None = None,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.use_bias = use_bias
        self.qk_norm_epsilon = qk_norm_epsilon
        self.attention_dropout = attention_dropout
        self.dropout = dropout
        policy = self.dtype_policy
        self.query_norm = self.key_norm = None
        if qk_norm_epsilon is not None:
            self.query_norm, self.key_norm = (
                LayerNormalization(epsilon=qk_norm_epsilon, dtype=policy, name=name)
                for name in ("query_norm", "key_norm")
            )
        self.score_drop = keras.layers.Dropout(attention_dropout, dtype=policy)
        self.output_drop = keras.layers.Dropout(dropout, dtype=policy)

    def build(
        self, tokens_shape: Shape, bias_shape: Any = None, keep_shape: Any = None
    ) -> None:
        """Create the two products."""
        width = tokens_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"num_heads must divide the width of the tokens, {width}. Received: "
                f"{self.num_heads}"
            )
        initializer = keras.initializers.TruncatedNormal(stddev=0.02)
        policy = self.dtype_policy
        self.qkv = keras.layers.Dense(
            3 * width,
            use_bias=self.use_bias,
            kernel_initializer=initializer,
            dtype=policy,
            name="qkv",
        )
        self.projection = keras.layers.Dense(
            width,
            kernel_initializer=initializer.clone(),
            dtype=policy,
            name="projection",
        )
        self.qkv.build(tokens_shape)
        self.projection.build(tokens_shape)
        for norm in (self.query_norm, self.key_norm):
            if norm is not None:
                norm.build((None, None, None, width // self.num_heads))

    def call(
        self,
        tokens: Tensor,
        bias: Tensor | None = None,
        keep: Tensor | None = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
    ) -> Any:
        """Let tokens (B, N, D) attend to each other.

        Args:
            tokens: (B, N, D) tensor.
            bias: tensor that broadcasts to (B, H, N, N), added to the logits.
            keep: (B, N) tensor in [0, 1]: how much of each token there is.
            return_attention_scores: whether to return the scores too.
            training: whether to drop.

        Returns:
            (B, N, D) tensor; with scores, a pair with (B, H, N, N) in [0, 1].
        """
        # Where samples and heads need not be told apart heads come first.
        are_alike = bias is None and keep is None and not return_attention_scores
        axis = 0 if are_alike else 1
        packed = dense_by_rows(self.qkv, tokens, training)
        queries, keys, values = split_heads(packed, self.num_heads, 3, axis)
        if self.query_norm is not None and self.key_norm is not None:
            queries, keys = self.query_norm(queries), self.key_norm(keys)
        scores = attention_scores(queries, keys, bias, keep)
        dropped = self.score_drop(scores, training=training)
        mixed = merge_heads(ops.matmul(dropped, values), axis)
        mixed = dense_by_rows(self.projection, mixed, training)
        outputs = self.output_drop(mixed, training=training)
        return (outputs, scores) if return_attention_scores else outputs

    def compute_output_spec(
        self,
        tokens: Any,
        bias: Any = None,
        keep: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
    ) -> Any:
        """Promise the shape of the tokens, and that of the scores if asked for."""
        batch, length, _ = tokens.shape
        outputs = keras.KerasTensor(tokens.shape, self.compute_dtype)
        if not return_attention_scores:
            return outputs
        shape = (batch, self.num_heads, length, length)
        return outputs, keras.KerasTensor(shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "use_bias": self.use_bias,
            "qk_norm_epsilon": self.qk_norm_epsilon,
            "attention_dropout": self.attention_dropout,
            "dropout": self.dropout,
        }
