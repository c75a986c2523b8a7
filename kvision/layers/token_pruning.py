"""Tokens that are given up on the way: masked in training, gone in inference.

Shapes: B batch, P prefix tokens such as the class token, N patches of the image, K of
them that are left, D width.
"""

from typing import Any

import keras
from keras import ops

from kvision.layers.normalization import LayerNormalization
from kvision.layers.transformer import TransformerBlock
from kvision.ops.gathering import gather_rows
from kvision.ops.rows import by_rows, dense_by_rows, gelu
from kvision.ops.tokens import hard_decisions, scatter_tokens, share_of

__all__ = [
    "KeptTokensToGrid",
    "PrunedTransformerBlock",
    "TokenPruning",
    "TokenScorer",
]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class TokenScorer(keras.layers.Layer):
    """Say of each patch how much it should be kept.

    Half of the channels of a patch speak for itself, the other half are averaged over
    all patches that are still there, and a small MLP decides.

    Args:
        num_prefix_tokens: tokens before the patches, which are not judged.
        epsilon: of the layer normalisation.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if at build time the width is no multiple of 4.

    Source: Rao et al. 2021, DynamicViT, equations 1 to 5; raoyongming/DynamicViT,
    vit.py: PredictorLG. Its `in_conv.0` and `.1` are `norm` and `dense` here, its
    `out_conv.0`, `.2` and `.4` are `out_dense1` to `out_dense3`; its log-softmax over
    (keep, drop) is the log-sigmoid of what this layer returns.
    """

    def __init__(
        self, num_prefix_tokens: int = 1, epsilon: float = 1e-5, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_prefix_tokens = num_prefix_tokens
        self.epsilon = epsilon
        self.norm = LayerNormalization(
            epsilon=epsilon, dtype=self.dtype_policy, name="norm"
        )

    def build(self, tokens_shape: Shape, keep_shape: Any = None) -> None:
        """Create the normalisation and the products."""
        width = tokens_shape[-1]
        if width % 4:
            raise ValueError(
                "TokenScorer halves the width of the tokens twice: it must be a "
                f"multiple of 4. Received: {width}"
            )
        sizes = {
            "dense": (width, width),
            "out_dense1": (width, width // 2),
            "out_dense2": (width // 2, width // 4),
            "out_dense3": (width // 4, 2),
        }
        self.norm.build(tokens_shape)
        for name, (inputs, units) in sizes.items():
            # Keras' own initial values, which fit any width: the source's standard
            # deviation of 0.02, four times in a row, leaves nothing of a narrow model.
            dense = keras.layers.Dense(units, dtype=self.dtype_policy, name=name)
            dense.build((*tokens_shape[:-1], inputs))
            setattr(self, name, dense)

    def call(
        self, tokens: Tensor, keep: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        """Judge the patches.

        Args:
            tokens: (B, P + N, D) tensor.
            keep: (B, P + N) tensor of 0 and 1: which are still there. It counts in
                training only; in inference those that are not there are gone.
            training: whether this is training.

        Returns:
            (B, N) float32 tensor: the log-odds of keeping each patch.
        """
        patches = tokens[:, self.num_prefix_tokens :]
        hidden = _gelu_of(self.dense, self.norm(patches), training)
        own, shared = ops.split(hidden, 2, axis=-1)
        if keep is not None and training:
            keep = keep[:, self.num_prefix_tokens :]
        else:
            keep = None
        mean = ops.cast(_mean(shared, keep), own.dtype)
        hidden = ops.concatenate([own, ops.zeros_like(own) + mean], axis=-1)
        hidden = _gelu_of(self.out_dense1, hidden, training)
        hidden = _gelu_of(self.out_dense2, hidden, training)
        logits = ops.cast(dense_by_rows(self.out_dense3, hidden, training), "float32")
        return logits[:, :, 0] - logits[:, :, 1]

    def compute_output_spec(
        self, tokens: Any, keep: Any = None, training: Any = None
    ) -> keras.KerasTensor:
        """Promise float32 under any policy."""
        batch, length, _ = tokens.shape
        return keras.KerasTensor((batch, length - self.num_prefix_tokens), "float32")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_prefix_tokens": self.num_prefix_tokens,
            "epsilon": self.epsilon,
        }


def _gelu_of(
    dense: keras.layers.Dense, tokens: Tensor, training: bool | None
) -> Tensor:
    if training:
        return gelu(dense_by_rows(dense, tokens, training))
    # As a plain layer, which TensorFlow fuses with the activation.
    return by_rows(lambda rows: gelu(dense(rows)), tokens)


def _mean(patches: Tensor, keep: Tensor | None) -> Tensor:
    """Average (B, N, D) over the patches that are there, to (B, 1, D) float32."""
    patches = ops.cast(patches, "float32")
    if keep is None:
        return ops.mean(patches, axis=1, keepdims=True)
    keep = ops.expand_dims(ops.cast(keep, "float32"), -1)
    total = ops.sum(patches * keep, axis=1, keepdims=True)
    # An image may lose all its patches early in training.
    return total / ops.maximum(ops.sum(keep, axis=1, keepdims=True), 1.0)


@keras.saving.register_keras_serializable("kvision")
class TokenPruning(keras.layers.Layer):
    """Give up some patches: by chance in training, the worst ones in inference.

    In training all tokens go on, so that shapes are static and gradients reach the
    judgement; `keep` says which of them count (`PrunedTransformerBlock` heeds it). In
    inference the int(N * keep_ratio) best ones go on, the best first.

    Args:
        keep_ratio: share of all N patches of the image, not of those that are left, in
            (0, 1].
        loss_weight: of the loss that brings the mean of `keep` to `keep_ratio` in
            training: loss_weight * mean over images of (mean keep - keep_ratio)^2.
        num_prefix_tokens: tokens before the patches, which are always kept.
        seed: of the random numbers; None for Keras' own.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if the ratio is out of range.

    Source: Rao et al. 2021, DynamicViT, equations 6 to 9 and 14 (with the Gumbel
    temperature 1); raoyongming/DynamicViT, vit.py and losses.py.
    """

    def __init__(
        self,
        keep_ratio: float,
        loss_weight: float = 2.0,
        num_prefix_tokens: int = 1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Log-odds stay in float32 next to tokens in half precision.
        super().__init__(autocast=False, **kwargs)
        if not 0 < keep_ratio <= 1:
            raise ValueError(f"keep_ratio must be in (0, 1]. Received: {keep_ratio}")
        self.keep_ratio = keep_ratio
        self.loss_weight = loss_weight
        self.num_prefix_tokens = num_prefix_tokens
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(
        self,
        tokens: Tensor,
        logits: Tensor,
        grid: Tensor,
        keep: Tensor | None = None,
        indices: Tensor | None = None,
        training: bool | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choose among the patches that are left.

        Args:
            tokens: (B, P + M, D) tensor; in training M is N.
            logits: (B, M) log-odds of keeping each patch, of `TokenScorer`.
            grid: (B, h, w, ...) tensor whose shape tells N = h * w.
            keep: (B, P + M) tensor, what the `TokenPruning` before returned; None at
                the first.
            indices: (B, M) int32 tensor, the same.
            training: whether this is training.

        Returns:
            Three tensors. In inference: tokens (B, P + K, D); ones (B, P + K) float32;
            (B, K) int32, where each of the K patches lies in the image, counted row by
            row. In training: tokens as they came; 0 or 1 for each (B, P + N); 0..N-1.
        """
        length = logits.shape[1]
        if indices is None:
            row = ops.reshape(ops.arange(length, dtype="int32"), (1, length))
            indices = ops.zeros_like(logits, dtype="int32") + row
        if training:
            return tokens, self._decisions(logits, keep), indices
        _, best = ops.top_k(logits, self._count(grid, length))
        prefix, patches = (
            tokens[:, : self.num_prefix_tokens],
            tokens[:, self.num_prefix_tokens :],
        )
        tokens = ops.concatenate([prefix, gather_rows(patches, best)], axis=1)
        ones = ops.ones_like(tokens[:, :, 0], dtype="float32")
        return tokens, ones, gather_rows(indices, best)

    def _count(self, grid: Tensor, length: int) -> int:
        total = grid.shape[1] * grid.shape[2]
        return min(length, max(1, share_of(total, self.keep_ratio)))

    def _decisions(self, logits: Tensor, keep: Tensor | None) -> Tensor:
        """Draw who stays of those who are there; add the loss; return (B, P + N)."""
        logits = ops.cast(logits, "float32")
        noise = keras.random.uniform(ops.shape(logits), seed=self.seed_generator)
        stays = hard_decisions(logits, noise)
        if keep is not None:
            stays = stays * ops.cast(keep[:, self.num_prefix_tokens :], "float32")
        excess = ops.mean(stays, axis=1) - self.keep_ratio
        self.add_loss(self.loss_weight * ops.mean(ops.square(excess)))
        prefix = ops.ones_like(stays[:, :1])
        return ops.concatenate([prefix] * self.num_prefix_tokens + [stays], axis=1)

    def compute_output_spec(
        self,
        tokens: Any,
        logits: Any,
        grid: Any,
        keep: Any = None,
        indices: Any = None,
        training: Any = None,
    ) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
        """Promise the shapes of inference, which Keras plans with."""
        batch, _, width = tokens.shape
        count = self._count(grid, logits.shape[1])
        length = self.num_prefix_tokens + count
        return (
            keras.KerasTensor((batch, length, width), tokens.dtype),
            keras.KerasTensor((batch, length), "float32"),
            keras.KerasTensor((batch, count), "int32"),
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "keep_ratio": self.keep_ratio,
            "loss_weight": self.loss_weight,
            "num_prefix_tokens": self.num_prefix_tokens,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable("kvision")
class PrunedTransformerBlock(TransformerBlock):
    """A `TransformerBlock` after a `TokenPruning`: `keep` counts in training only.

    In inference the tokens that are not kept are gone, and the softmax is the plain
    one, which is faster and has a kernel of its own everywhere.

    Args:
        attention: as of `TransformerBlock`.
        mlp: as of `TransformerBlock`.
        epsilon: as of `TransformerBlock`.
        layer_scale: as of `TransformerBlock`.
        drop_path: as of `TransformerBlock`.
        recompute: as of `TransformerBlock`.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def call(
        self,
        tokens: Tensor,
        bias: Tensor | None = None,
        keep: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        """Transform tokens.

        Args:
            tokens: (B, N, D) tensor.
            bias: as `SelfAttention` takes it.
            keep: (B, N) tensor in [0, 1], how much of each token there is in training.
            training: whether this is training.

        Returns:
            Tensor of the same shape.
        """
        return super().call(tokens, bias, keep if training else None, training)


@keras.saving.register_keras_serializable("kvision")
class KeptTokensToGrid(keras.layers.Layer):
    """Lay the patches that are left out in the grid they come from.

    Args:
        num_prefix_tokens: tokens before the patches, which are left out.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, num_prefix_tokens: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_prefix_tokens = num_prefix_tokens

    def call(self, tokens: Tensor, indices: Tensor, grid: Tensor) -> Tensor:
        """Map tokens to a grid.

        Args:
            tokens: (B, P + K, D) tensor.
            indices: (B, K) int32 tensor, where each patch lies, row by row.
            grid: (B, h, w, D) tensor: what stands where no patch is left.

        Returns:
            (B, h, w, D) tensor.
        """
        _, height, width, depth = grid.shape
        background = ops.reshape(grid, (-1, height * width, depth))
        patches = tokens[:, self.num_prefix_tokens :]
        rows = scatter_tokens(patches, indices, background)
        return ops.reshape(rows, (-1, height, width, depth))

    def compute_output_shape(
        self, tokens_shape: Shape, indices_shape: Shape, grid_shape: Shape
    ) -> Shape:
        """Return that of the grid."""
        return grid_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "num_prefix_tokens": self.num_prefix_tokens}
