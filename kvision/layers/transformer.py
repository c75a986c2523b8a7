"""A transformer block around any attention and any MLP."""

from typing import Any

import keras
from keras import ops

from kvision.layers.dropping import DropPath
from kvision.layers.normalization import LayerNormalization
from kvision.ops.recomputation import recomputed

__all__ = ["LayerScale", "TransformerBlock"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class LayerScale(keras.layers.Layer):
    """Multiply each channel by a learned number that begins near 0.

    Args:
        initial_value: where it begins.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Touvron et al. 2021, Going deeper with Image Transformers, equation 2.
    """

    def __init__(self, initial_value: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_value = initial_value

    def build(self, input_shape: Shape) -> None:
        """Create the numbers."""
        self.gamma = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_value),
            name="gamma",
        )

    def call(self, inputs: Tensor) -> Tensor:
        """Map (..., D) to the same shape."""
        return inputs * ops.cast(self.gamma, inputs.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Keep the shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "initial_value": self.initial_value}


@keras.saving.register_keras_serializable("kvision")
class TransformerBlock(keras.layers.Layer):
    """Pre-norm block: x += scale1(attention(norm1(x))); x += scale2(mlp(norm2(x))).

    Args:
        attention: layer of normalised tokens to tokens, such as `SelfAttention`.
        mlp: layer of normalised tokens to tokens, such as `MLP`.
        epsilon: of both layer normalisations.
        layer_scale: initial value of a `LayerScale` after each branch; None for none.
        drop_path: share of samples that skip a branch in training, drawn for each
            branch anew.
        recompute: whether training keeps only the input of the block and computes what
            is inside again for the gradients (gradient checkpointing).
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Dosovitskiy et al. 2021, equations 2 and 3.
    """

    def __init__(
        self,
        attention: keras.layers.Layer,
        mlp: keras.layers.Layer,
        epsilon: float = 1e-6,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.attention = attention
        self.mlp = mlp
        self.epsilon = epsilon
        self.layer_scale = layer_scale
        self.drop_path = drop_path
        self.recompute = recompute
        policy = self.dtype_policy
        self.norm1, self.norm2 = (
            LayerNormalization(epsilon=epsilon, dtype=policy, name=name)
            for name in ("norm1", "norm2")
        )
        self.layer_scale1 = self.layer_scale2 = None
        if layer_scale is not None:
            self.layer_scale1, self.layer_scale2 = (
                LayerScale(layer_scale, dtype=policy, name=name)
                for name in ("layer_scale1", "layer_scale2")
            )
        self.drop_path1, self.drop_path2 = (
            DropPath(drop_path, dtype=policy, name=name)
            for name in ("drop_path1", "drop_path2")
        )

    def build(
        self, tokens_shape: Shape, bias_shape: Any = None, keep_shape: Any = None
    ) -> None:
        """Create the weights of all parts."""
        for part in (
            self.norm1,
            self.attention,
            self.layer_scale1,
            self.norm2,
            self.mlp,
            self.layer_scale2,
        ):
            if part is not None and not part.built:
                part.build(tokens_shape)

    def call(
        self,
        tokens: Tensor,
        bias: Tensor | None = None,
        keep: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        """Transform tokens.

        Args:
            tokens: (B, N, D) or (B, h, w, D) tensor.
            bias: as `SelfAttention` takes it.
            keep: as `SelfAttention` takes it.
            training: whether to drop.

        Returns:
            Tensor of the same shape.
        """
        given = {"bias": bias, "keep": keep}
        given = {name: value for name, value in given.items() if value is not None}
        if not (self.recompute and training):
            return self._transform(tokens, given, training)

        def transform(tokens: Tensor, given: dict[str, Tensor]) -> Tensor:
            return self._transform(tokens, given, training)

        return recomputed(transform, self.non_trainable_variables)(tokens, given)

    def _transform(
        self, tokens: Tensor, given: dict[str, Tensor], training: bool | None
    ) -> Tensor:
        normalized = self.norm1(tokens, training=training)
        branch = self.attention(normalized, **given, training=training)
        if self.layer_scale1 is not None:
            branch = self.layer_scale1(branch)
        tokens = tokens + self.drop_path1(branch, training=training)
        normalized = self.norm2(tokens, training=training)
        branch = self.mlp(normalized, training=training)
        if self.layer_scale2 is not None:
            branch = self.layer_scale2(branch)
        return tokens + self.drop_path2(branch, training=training)

    def compute_output_spec(
        self, tokens: Any, bias: Any = None, keep: Any = None, training: Any = None
    ) -> keras.KerasTensor:
        """Keep the shape."""
        return keras.KerasTensor(tokens.shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "attention": keras.saving.serialize_keras_object(self.attention),
            "mlp": keras.saving.serialize_keras_object(self.mlp),
            "epsilon": self.epsilon,
            "layer_scale": self.layer_scale,
            "drop_path": self.drop_path,
            "recompute": self.recompute,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TransformerBlock":
        """Build the block and its two layers."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("attention", "mlp")
        }
        return cls(**{**config, **parts})
