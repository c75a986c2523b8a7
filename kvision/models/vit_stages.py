"""A Vision Transformer in three stages: tokens, blocks, one vector.

Shapes: B batch, h x w patches, P prefix tokens (class, distillation, registers),
N = P + h * w tokens, D width.
"""

import functools
from typing import Any

import keras

from kvision import layers
from kvision.models.classifier import policy_of

__all__ = ["embed", "encode", "grids_of", "norm", "pool", "transformer_block"]

Tensor = Any

_POSITIONS = (None, "learned", "sincos_1d", "sincos_2d", "relative", "convolution")
_POOLINGS = ("token", "average", "attention")
_RULES = ("linear", "constant")


def embed(
    grid: Tensor,
    *,
    class_token: bool,
    distillation_token: bool,
    num_register_tokens: int,
    positions: str | None,
    prefix_positions: bool,
    position_interpolation: str,
    position_grid: tuple[int, int] | None,
    dropout: float,
    patch_dropout: float,
    dtype: Any,
) -> Tensor:
    """Turn a grid of patches (B, h, w, D) into tokens (B, N, D) that know their places.

    Args:
        grid: patches.
        class_token: as in `kvision.models.vit.build_vit`, and so all that follow.
        distillation_token: see there.
        num_register_tokens: see there.
        positions: see there.
        prefix_positions: see there.
        position_interpolation: see there.
        position_grid: see there.
        dropout: see there.
        patch_dropout: see there.
        dtype: dtype policy.

    Returns:
        The tokens, prefix tokens first.

    Raises:
        ValueError: for an unknown kind of positions, or patch dropout with positions
            that need every patch.
    """
    _require("positions", positions, _POSITIONS)
    if patch_dropout and positions in ("relative", "convolution"):
        raise ValueError(
            f"patch_dropout leaves holes in the grid that positions={positions!r} "
            'needs whole. Use positions="learned" or patch_dropout=0'
        )
    prefix = {
        "register_tokens": num_register_tokens,
        "distillation_token": int(distillation_token),
        "class_token": int(class_token),
    }
    place = functools.partial(
        _placed,
        grid=grid,
        positions=positions,
        table_grid=position_grid,
        interpolation=position_interpolation,
        dtype=dtype,
    )
    rows = keras.layers.Reshape((-1, grid.shape[-1]), dtype=dtype, name="patches")
    tokens = rows(grid)
    if not prefix_positions:
        tokens = place(tokens, 0)
    for name, count in prefix.items():
        if count:
            tokens = layers.ClassToken(count, dtype=dtype, name=name)(tokens)
    if prefix_positions:
        tokens = place(tokens, sum(prefix.values()))
    if dropout:
        tokens = keras.layers.Dropout(dropout, dtype=dtype, name="dropout")(tokens)
    if patch_dropout:
        tokens = layers.PatchDropout(
            patch_dropout, sum(prefix.values()), dtype=dtype, name="patch_dropout"
        )(tokens)
    return tokens


def _placed(
    tokens: Tensor,
    num_prefix: int,
    *,
    grid: Tensor,
    positions: str | None,
    table_grid: tuple[int, int] | None,
    interpolation: str,
    dtype: Any,
) -> Tensor:
    """Add what tells tokens their places, unless the blocks do."""
    settings = {"dtype": dtype, "name": "position_embedding"}
    if positions == "learned":
        return layers.PositionEmbedding(
            num_prefix, table_grid, interpolation, **settings
        )(tokens, grid)
    if positions == "sincos_1d":
        return layers.SinCosPositionEmbedding1D(**settings)(tokens)
    if positions == "sincos_2d":
        return layers.SinCosPositionEmbedding2D(num_prefix, **settings)(tokens, grid)
    return tokens


def encode(
    tokens: Tensor,
    grid: Tensor,
    *,
    depth: int,
    num_heads: int,
    mlp_dim: int,
    num_prefix_tokens: int,
    positions: str | None,
    qkv_bias: bool,
    qk_norm: bool,
    activation: str,
    layer_scale: float | None,
    epsilon: float,
    dropout: float,
    attention_dropout: float,
    drop_path: float,
    drop_path_rule: str,
    recompute: bool,
    dtype: Any,
) -> list[Tensor]:
    """Run the blocks.

    Args:
        tokens: (B, N, D).
        grid: patches (B, h, w, ...).
        depth: number of blocks.
        num_heads: of each.
        mlp_dim: of each.
        num_prefix_tokens: P.
        positions: as in `kvision.models.vit.build_vit`, and so all that follow.
        qkv_bias: see there.
        qk_norm: see there.
        activation: see there.
        layer_scale: see there.
        epsilon: see there.
        dropout: see there.
        attention_dropout: see there.
        drop_path: see there.
        drop_path_rule: see there.
        recompute: see there.
        dtype: dtype policy.

    Returns:
        What leaves each block, (B, N, D).

    Raises:
        ValueError: for an unknown rule of drop path.
    """
    outputs = []
    for index in range(depth):
        block = transformer_block(
            index,
            depth=depth,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            activation=activation,
            layer_scale=layer_scale,
            epsilon=epsilon,
            dropout=dropout,
            attention_dropout=attention_dropout,
            drop_path=drop_path,
            drop_path_rule=drop_path_rule,
            recompute=recompute,
            dtype=dtype,
        )
        bias = {}
        if positions == "relative":
            bias["bias"] = layers.RelativePositionBias(
                num_heads, num_prefix_tokens, dtype=dtype, name=f"position_bias_{index}"
            )(grid)
        tokens = block(tokens, **bias)
        if positions == "convolution" and index == 0:
            tokens = _convolved(tokens, grid, num_prefix_tokens, dtype)
        outputs.append(tokens)
    return outputs


def transformer_block(
    index: int,
    *,
    depth: int,
    num_heads: int,
    mlp_dim: int,
    qkv_bias: bool,
    qk_norm: bool,
    activation: str,
    layer_scale: float | None,
    epsilon: float,
    dropout: float,
    attention_dropout: float,
    drop_path: float,
    drop_path_rule: str,
    recompute: bool,
    dtype: Any,
    kind: type[layers.TransformerBlock] = layers.TransformerBlock,
) -> layers.TransformerBlock:
    """Make one block, named "block_0" and so on.

    Args:
        index: which one, from 0.
        depth: of how many.
        num_heads: of its attention.
        mlp_dim: width inside its MLP.
        qkv_bias: as in `kvision.models.vit.build_vit`, and so all that follow.
        qk_norm: see there.
        activation: see there.
        layer_scale: see there.
        epsilon: see there.
        dropout: see there.
        attention_dropout: see there.
        drop_path: see there.
        drop_path_rule: see there.
        recompute: see there.
        dtype: dtype policy.
        kind: class of the block.

    Returns:
        The layer.

    Raises:
        ValueError: for an unknown rule of drop path.
    """
    _require("drop_path_rule", drop_path_rule, _RULES)
    share = index / max(depth - 1, 1) if drop_path_rule == "linear" else 1.0
    attention = layers.SelfAttention(
        num_heads,
        qkv_bias,
        epsilon if qk_norm else None,
        attention_dropout,
        dropout,
        dtype=dtype,
        name="attention",
    )
    return kind(
        attention,
        _mlp(mlp_dim, activation, dropout, dtype),
        epsilon,
        layer_scale,
        drop_path * share,
        recompute,
        dtype=dtype,
        name=f"block_{index}",
    )


def _mlp(
    hidden_dim: int, activation: str, dropout: float, dtype: Any
) -> keras.layers.Layer:
    if activation == "swiglu":
        return layers.SwiGLU(hidden_dim, dropout, dtype=dtype, name="mlp")
    return layers.MLP(hidden_dim, activation, dropout, dtype=dtype, name="mlp")


def _convolved(tokens: Tensor, grid: Tensor, num_prefix: int, dtype: Any) -> Tensor:
    """Tell patches their places by a convolution (Chu et al. 2021, CPVT)."""
    to_grid = layers.TokensToGrid(num_prefix, dtype=dtype, name="position_grid")
    patches = layers.PositionEncodingGenerator(dtype=dtype, name="position_embedding")(
        to_grid(tokens, grid)
    )
    patches = keras.layers.Reshape((-1, tokens.shape[-1]), dtype=dtype)(patches)
    if not num_prefix:
        return patches
    join = keras.layers.Concatenate(axis=1, dtype=dtype, name="position_join")
    return join([tokens[:, :num_prefix], patches])


def pool(
    tokens: Tensor,
    pooling: str,
    *,
    num_prefix_tokens: int,
    num_heads: int,
    mlp_dim: int,
    epsilon: float,
    dtype: Any,
    activation: str = "gelu",
) -> Tensor:
    """Make one vector (B, D) of tokens (B, N, D).

    Args:
        tokens: what the blocks made.
        pooling: "token" (the first), "average" of the patches or "attention".
        num_prefix_tokens: P.
        num_heads: of the attention.
        mlp_dim: of the attention.
        epsilon: of its normalisation.
        dtype: dtype policy.
        activation: of its MLP, which is never gated: "gelu" where that of the blocks
            is "swiglu".

    Returns:
        The vector.

    Raises:
        ValueError: for an unknown pooling, or "token" where there is none.
    """
    _require("pooling", pooling, _POOLINGS)
    settings = {"dtype": dtype, "name": "pooling"}
    if pooling == "average":
        return layers.AveragePooling(num_prefix_tokens, **settings)(tokens)
    if pooling == "attention":
        plain = "gelu" if activation == "swiglu" else activation
        return layers.AttentionPooling(num_heads, mlp_dim, epsilon, plain, **settings)(
            tokens
        )
    if not num_prefix_tokens:
        raise ValueError(
            'pooling="token" needs a class token. Use pooling="average" or '
            "class_token=True"
        )
    return layers.TokenPooling(**settings)(tokens)


def norm(epsilon: float, dtype: Any, name: str = "norm") -> keras.layers.Layer:
    """Make a layer normalisation.

    Args:
        epsilon: added to the variance.
        dtype: dtype policy.
        name: of the layer.

    Returns:
        The layer.
    """
    return layers.LayerNormalization(epsilon=epsilon, dtype=dtype, name=name)


def grids_of(
    blocks: list[Tensor],
    tokens: Tensor,
    grid: Tensor,
    num_prefix_tokens: int,
    dtype: Any = None,
) -> dict[str, Tensor]:
    """Name the tokens of every block, and lay their patches out.

    Args:
        blocks: what leaves each block, (B, N, D).
        tokens: the last ones, normalised.
        grid: patches (B, h, w, ...).
        num_prefix_tokens: P.
        dtype: dtype policy.

    Returns:
        "block_0"..., "tokens" (B, N, D); "block_0_grid"..., "grid" (B, h, w, D).
    """
    named = {f"block_{index}": block for index, block in enumerate(blocks)}
    outputs = {**named, "tokens": tokens}
    for name, values in [*named.items(), ("", tokens)]:
        label = f"{name}_grid".lstrip("_")
        to_grid = layers.TokensToGrid(
            num_prefix_tokens, dtype=policy_of(dtype), name=label
        )
        outputs[label] = to_grid(values, grid)
    return outputs


def _require(argument: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"{argument} must be one of {', '.join(map(repr, known))}. Received: "
            f"{value!r}"
        )
