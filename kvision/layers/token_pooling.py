"""From tokens to one vector."""

from typing import Any

import keras
from keras import ops

from kvision.layers.mlp import MLP
from kvision.layers.normalization import LayerNormalization
from kvision.ops.attention import attention_scores, merge_heads, split_heads
from kvision.ops.rows import dense_by_rows

__all__ = ["AttentionPooling", "AveragePooling", "TokenPooling"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class TokenPooling(keras.layers.Layer):
    """Take one token, such as the class token.

    Args:
        index: which one.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, index: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.index = index

    def call(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) to (B, D)."""
        return tokens[:, self.index]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return (B, D)."""
        return (input_shape[0], input_shape[2])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "index": self.index}


@keras.saving.register_keras_serializable("kvision")
class AveragePooling(keras.layers.Layer):
    """Average the patches; tokens before them do not count.

    Args:
        num_prefix_tokens: tokens before the patches.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, num_prefix_tokens: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_prefix_tokens = num_prefix_tokens

    def call(self, tokens: Tensor) -> Tensor:
        """Map (B, P + N, D) to (B, D)."""
        return ops.mean(tokens[:, self.num_prefix_tokens :], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return (B, D)."""
        return (input_shape[0], input_shape[2])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "num_prefix_tokens": self.num_prefix_tokens}


@keras.saving.register_keras_serializable("kvision")
class AttentionPooling(keras.layers.Layer):
    """Let one learned query attend to all tokens, then add an MLP of the result.

    Args:
        num_heads: H, which divides the width of the tokens.
        mlp_dim: width of the MLP.
        epsilon: of its layer normalisation.
        activation: of the MLP; see `MLP`.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Zhai et al. 2022, Scaling Vision Transformers, section 3.2; big_vision,
    models/vit.py: MAPHead; timm, layers/attention_pool.py: AttentionPoolLatent.
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        epsilon: float = 1e-6,
        activation: str = "gelu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.epsilon = epsilon
        self.activation = activation
        policy = self.dtype_policy
        self.norm = LayerNormalization(epsilon=epsilon, dtype=policy, name="norm")
        self.mlp = MLP(mlp_dim, activation, dtype=policy, name="mlp")

    def build(self, input_shape: Shape) -> None:
        """Create the query, the products and the MLP."""
        width = input_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"num_heads must divide the width of the tokens, {width}. Received: "
                f"{self.num_heads}"
            )
        self.probe = self.add_weight(
            shape=(1, 1, width),
            initializer=keras.initializers.TruncatedNormal(stddev=width**-0.5),
            name="probe",
        )
        self.query, self.key_value, self.projection = (
            keras.layers.Dense(units, dtype=self.dtype_policy, name=name)
            for name, units in (
                ("query", width),
                ("key_value", 2 * width),
                ("projection", width),
            )
        )
        for part in (self.query, self.key_value, self.projection, self.norm, self.mlp):
            part.build((None, None, width))

    def call(self, tokens: Tensor, training: bool | None = None) -> Tensor:
        """Map (B, N, D) to (B, D)."""
        probe = ops.cast(self.probe, tokens.dtype)
        query = dense_by_rows(self.query, probe, training)
        (queries,) = split_heads(query, self.num_heads, 1)
        packed = dense_by_rows(self.key_value, tokens, training)
        keys, values = split_heads(packed, self.num_heads, 2)
        queries = ops.zeros_like(keys[:, :, :1]) + queries
        mixed = ops.matmul(attention_scores(queries, keys), values)
        pooled = dense_by_rows(self.projection, merge_heads(mixed), training)
        return (pooled + self.mlp(self.norm(pooled), training=training))[:, 0]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return (B, D)."""
        return (input_shape[0], input_shape[2])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "epsilon": self.epsilon,
            "activation": self.activation,
        }
