"""What training leaves out: whole branches of a sample, and patches."""

from typing import Any

import keras
from keras import ops

__all__ = ["DropPath", "PatchDropout"]

Tensor = Any
Shape = tuple[int | None, ...]


def _check_rate(rate: float) -> None:
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be at least 0 and below 1. Received: {rate}")


@keras.saving.register_keras_serializable("kvision")
class DropPath(keras.layers.Layer):
    """Leave a branch out for some samples, and scale it up for the others.

    Args:
        rate: share of the samples.
        seed: of the random numbers; None for Keras' own.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if the rate is not in [0, 1).

    Source: Huang et al. 2016, Deep Networks with Stochastic Depth, in the form of timm,
    layers/drop.py: by sample, expectation kept.
    """

    def __init__(
        self, rate: float = 0.0, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        _check_rate(rate)
        self.rate = rate
        self.seed = seed
        if rate:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, branch: Tensor, training: bool | None = None) -> Tensor:
        """Map (B, ...) to the same shape."""
        if not (training and self.rate):
            return branch
        shape = (ops.shape(branch)[0], *(1 for _ in branch.shape[1:]))
        ones = ops.ones(shape, branch.dtype)
        return branch * keras.random.dropout(ones, self.rate, seed=self.seed_generator)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Keep the shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable("kvision")
class PatchDropout(keras.layers.Layer):
    """Train on some of the patches only: less time, and a regulariser.

    Args:
        rate: share of the patches that are left out, the same number in each sample.
        num_prefix_tokens: tokens before the patches, which always stay.
        seed: of the random numbers; None for Keras' own.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if the rate is not in [0, 1).

    Source: Li et al. 2022, FLIP, section 3; timm, layers/patch_dropout.py.
    """

    def __init__(
        self,
        rate: float,
        num_prefix_tokens: int = 1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_rate(rate)
        self.rate = rate
        self.num_prefix_tokens = num_prefix_tokens
        self.seed = seed
        if rate:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, tokens: Tensor, training: bool | None = None) -> Tensor:
        """Map (B, P + N, D) to fewer tokens in training, else to the same."""
        if not (training and self.rate):
            return tokens
        patches = tokens[:, self.num_prefix_tokens :]
        count = max(1, int(patches.shape[1] * (1 - self.rate)))
        noise = keras.random.uniform(
            (ops.shape(tokens)[0], patches.shape[1]), seed=self.seed_generator
        )
        _, kept = ops.top_k(noise, count)
        kept = ops.take_along_axis(
            patches, ops.expand_dims(ops.sort(kept, axis=1), -1), axis=1
        )
        prefix = tokens[:, : self.num_prefix_tokens]
        return ops.concatenate([prefix, kept], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Keep the shape: that of inference, which Keras plans with."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "rate": self.rate,
            "num_prefix_tokens": self.num_prefix_tokens,
            "seed": self.seed,
        }
