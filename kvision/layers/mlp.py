"""The part of a block that works on each token alone."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kvision.ops.fusing import fused
from kvision.ops.recomputation import recomputed
from kvision.ops.rows import by_rows, dense_by_rows, gelu

__all__ = ["MLP", "SwiGLU"]

Tensor = Any
Shape = tuple[int | None, ...]


def _gelu_tanh(x: Tensor) -> Tensor:
    return ops.gelu(x, approximate=True)


def _quick_gelu(x: Tensor) -> Tensor:
    return x * ops.sigmoid(1.702 * x)


def _gated(hidden: Tensor) -> Tensor:
    gates, values = ops.split(hidden, 2, axis=-1)
    return ops.silu(gates) * values


# Sources that say "gelu" mean different functions: the exact one (PyTorch), its tanh
# approximation (flax), a sigmoid (OpenAI's CLIP, up to 0.02 away).
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "relu": ops.relu,
}


class _FeedForward(keras.layers.Layer):
    """Two products, dropout after each activation; what is between differs."""

    def __init__(
        self,
        hidden_dim: int,
        activate: Callable[[Tensor], Tensor],
        dropout: float,
        parts: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._activate = activate
        self.hidden_dim = hidden_dim
        self.dropout = dropout
        self._parts = parts
        self.hidden_drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.output_drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        """Create the two products."""
        self.fc1, self.fc2 = (
            keras.layers.Dense(
                units,
                kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
                dtype=self.dtype_policy,
                name=name,
            )
            for name, units in (
                ("fc1", self._parts * self.hidden_dim),
                ("fc2", input_shape[-1]),
            )
        )
        self.fc1.build(input_shape)
        self.fc2.build((*input_shape[:-1], self.hidden_dim))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Map (..., D) to (..., D)."""
        return by_rows(lambda rows: self._transform(rows, training), inputs)

    def _transform(self, rows: Tensor, training: bool | None) -> Tensor:
        def activate_and_narrow(hidden: Tensor) -> Tensor:
            activate = fused(self._activate) if training else self._activate
            hidden = self.hidden_drop(activate(hidden), training=training)
            return dense_by_rows(self.fc2, hidden, training)

        if training:
            # An activation is cheap to compute again, and what its gradient and that of
            # the second product would keep is half of the memory of a block.
            seeds = self.hidden_drop.non_trainable_variables
            hidden = dense_by_rows(self.fc1, rows, training)
            narrow = recomputed(activate_and_narrow, seeds)(hidden)
        else:
            # As a plain layer, which TensorFlow fuses with the activation.
            narrow = activate_and_narrow(self.fc1(rows))
        return self.output_drop(narrow, training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Keep the shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable("kvision")
class MLP(_FeedForward):
    """Dense, activation, dense.

    Args:
        hidden_dim: width in between.
        activation: "gelu" (exact), "gelu_tanh" (flax's), "quick_gelu" (OpenAI CLIP's)
            or "relu".
        dropout: share that training drops, after the activation and at the end.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: for an unknown activation.
    """

    def __init__(
        self,
        hidden_dim: int,
        activation: str = "gelu",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if activation not in _ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(_ACTIVATIONS)}. Received: "
                f"{activation!r}"
            )
        activate = _ACTIVATIONS[activation]
        super().__init__(hidden_dim, activate, dropout, parts=1, **kwargs)
        self.activation = activation

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "activation": self.activation}


@keras.saving.register_keras_serializable("kvision")
class SwiGLU(_FeedForward):
    """Dense, half of it gating the other half, dense: W3 (silu(W1 x) * W2 x).

    Args:
        hidden_dim: width in between; the first product is twice as wide.
        dropout: share that training drops, after the gate and at the end.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Shazeer 2020, GLU Variants Improve Transformer, equation 6.
    """

    def __init__(self, hidden_dim: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(hidden_dim, _gated, dropout, parts=2, **kwargs)
