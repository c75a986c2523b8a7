"""DynamicViT: a Vision Transformer that gives up patches on the way."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from kvision import layers
from kvision.models.classifier import (
    IMAGENET,
    Normalization,
    classify,
    image_input,
    policy_of,
)
from kvision.models.vit import ViTSize, patches_of
from kvision.models.vit_stages import embed, norm, pool, transformer_block

__all__ = ["dynamic_vit"]

Tensor = Any


def dynamic_vit(
    variant: str = "S/16",
    keep_ratio: float = 0.7,
    prune_at: Sequence[int] = (3, 6, 9),
    *,
    ratio_weight: float = 2.0,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: tuple[int, int] = (224, 224),
    num_channels: int = 3,
    normalization: Normalization = IMAGENET,
    resize: str = "crop",
    crop_fraction: float = 0.9,
    interpolation: str = "bicubic",
    prefix_positions: bool = True,
    position_interpolation: str = "bicubic_antialias",
    layer_scale: float | None = None,
    epsilon: float = 1e-6,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    drop_path: float = 0.0,
    recompute: bool = False,
    head_dropout: float = 0.0,
    features: bool = False,
    dtype: Any = None,
    name: str | None = None,
) -> keras.Model:
    """Build a DynamicViT: before some blocks the least useful patches are given up.

    It is one model for training and inference. In training all tokens stay and those
    that were given up are masked, so that the judgement learns too; a loss that holds
    the share that is kept is added to whatever loss the model is compiled with. In
    inference they are gone, and the time they took. Its other layers have the names and
    weights of `kvision.models.vit` and `deit` of the same variant.

    Example:
        model = kvision.models.dynamic_vit("S/16", class_names=["cat", "dog"])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adamw", loss, metrics=["accuracy"])

    Args:
        variant: as of `kvision.models.vit`.
        keep_ratio: rho, in (0, 1]; of the N patches of the image int(N rho), int(N
            rho^2), ... are left after each pruning.
        prune_at: numbers of the blocks before which patches are given up, ascending.
        ratio_weight: of the loss that holds the share that is kept: ratio_weight * mean
            over prunings and images of (mean keep - rho^i)^2.
        num_classes: as of `kvision.models.vit`.
        class_names: as of `kvision.models.vit`.
        image_size: as of `kvision.models.vit`.
        num_channels: as of `kvision.models.vit.build_vit`, and so all that follow.
        normalization: see there.
        resize: see there.
        crop_fraction: see there.
        interpolation: see there.
        prefix_positions: see there.
        position_interpolation: see there.
        layer_scale: see there.
        epsilon: see there.
        dropout: see there.
        attention_dropout: see there.
        drop_path: see there.
        recompute: see there.
        head_dropout: see there.
        features: whether to return tokens, grids and what was kept, not logits.
        dtype: dtype policy such as "mixed_bfloat16"; None for the global one.
        name: name of the model.

    Returns:
        Functional model from images (B, H, W, C) in 0-255 to logits (B, K), or to
        pooled features (B, D) without classes. With `features` its outputs are a dict:
        "block_0"... (B, 1 + K, D) is what leaves each block, "tokens" the last one,
        normalised; "kept_3"... (B, K) int32 says where the K patches that enter block
        3 lie in the grid, counted row by row, the best first, and "keep_logits_3"...
        (B, M) how much each of the M patches before it was worth keeping;
        "block_0_grid"... and "grid" (B, h, w, D) lay the patches out, where those
        that are gone keep the last value they had.

    Raises:
        ValueError: for an argument out of range.

    Source: Rao et al. 2021, DynamicViT: Efficient Vision Transformers with Dynamic
    Token Sparsification; raoyongming/DynamicViT, vit.py and losses.py.
    """
    policy = policy_of(dtype)
    size, stem = patches_of(variant, dtype=policy)
    _check(keep_ratio, prune_at, size.depth)
    images, normalized = image_input(
        image_size,
        num_channels,
        normalization=normalization,
        resize=resize,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
        dtype=policy,
    )
    grid = stem(normalized)
    tokens = embed(
        grid,
        class_token=True,
        distillation_token=False,
        num_register_tokens=0,
        positions="learned",
        prefix_positions=prefix_positions,
        position_interpolation=position_interpolation,
        position_grid=None,
        dropout=dropout,
        patch_dropout=0.0,
        dtype=policy,
    )
    block = functools.partial(
        transformer_block,
        depth=size.depth,
        num_heads=size.num_heads,
        mlp_dim=size.mlp_dim,
        qkv_bias=True,
        qk_norm=False,
        activation="gelu",
        layer_scale=layer_scale,
        epsilon=epsilon,
        dropout=dropout,
        attention_dropout=attention_dropout,
        drop_path=drop_path,
        drop_path_rule="linear",
        recompute=recompute,
        dtype=policy,
    )
    prune = functools.partial(
        _pruned,
        grid=grid,
        loss_weight=ratio_weight / max(len(prune_at), 1),
        dtype=policy,
    )
    shares = {at: keep_ratio**number for number, at in enumerate(prune_at, 1)}
    stages = _encode(tokens, size.depth, block, prune, shares)
    last = norm(epsilon, policy)
    tokens = last(stages[-1].blocks[size.depth - 1])
    name = name or f"dynamic_vit_{variant.replace('/', '_')}"
    if features:
        outputs = _features(stages, grid, policy)
        outputs.update(tokens=tokens, grid=last(outputs["grid"]))
        return keras.Model(images, outputs, name=name)
    pooled = _class_token(tokens, size, epsilon, policy)
    logits = classify(
        pooled, num_classes, class_names, dropout=head_dropout, dtype=policy
    )
    return keras.Model(images, logits, name=name)


def _check(keep_ratio: float, prune_at: Sequence[int], depth: int) -> None:
    if not 0 < keep_ratio <= 1:
        raise ValueError(f"keep_ratio must be in (0, 1]. Received: {keep_ratio}")
    numbers = list(prune_at)
    if numbers != sorted(set(numbers)) or not set(numbers) <= set(range(depth)):
        raise ValueError(
            f"prune_at must be numbers of blocks, ascending, in 0..{depth - 1}. "
            f"Received: {prune_at}"
        )


class _Stage(NamedTuple):
    """Blocks that work on the same patches.

    Attributes:
        start: number of the first block.
        before: (B, 1 + M, D), what comes from the stage before.
        logits: (B, M), how much each patch was worth keeping; None at the first.
        keep: (B, 1 + K), which tokens count in training; the same.
        kept: (B, K), where the patches lie; the same.
        blocks: number of a block -> (B, 1 + K, D), what leaves it.
    """

    start: int
    before: Tensor
    logits: Tensor | None
    keep: Tensor | None
    kept: Tensor | None
    blocks: dict[int, Tensor]


def _encode(
    tokens: Tensor, depth: int, block: Any, prune: Any, shares: dict[int, float]
) -> list[_Stage]:
    """Run the blocks, and prune before those that have a share."""
    stage = _Stage(0, tokens, None, None, None, {})
    stages = [stage]
    for number in range(depth):
        if number in shares:
            tokens, stage = prune(tokens, stage, number, shares[number])
            stages.append(stage)
        if stage.keep is None:
            tokens = block(number)(tokens)
        else:
            kind = layers.PrunedTransformerBlock
            tokens = block(number, kind=kind)(tokens, keep=stage.keep)
        stage.blocks[number] = tokens
    return stages


def _pruned(
    tokens: Tensor,
    last: _Stage,
    number: int,
    share: float,
    *,
    grid: Tensor,
    loss_weight: float,
    dtype: Any,
) -> tuple[Tensor, _Stage]:
    """Judge and choose: the tokens that go on, and the stage that they begin."""
    scorer = layers.TokenScorer(dtype=dtype, name=f"token_scorer_{number}")
    pruning = layers.TokenPruning(
        share, loss_weight, dtype=dtype, name=f"token_pruning_{number}"
    )
    if last.keep is None:
        logits = scorer(tokens)
        left, keep, kept = pruning(tokens, logits, grid)
    else:
        logits = scorer(tokens, keep=last.keep)
        left, keep, kept = pruning(
            tokens, logits, grid, keep=last.keep, indices=last.kept
        )
    return left, _Stage(number, tokens, logits, keep, kept, {})


def _features(stages: list[_Stage], grid: Tensor, dtype: Any) -> dict[str, Tensor]:
    """Name what leaves each block and what was kept, and lay the patches out."""
    to_grid = layers.TokensToGrid(1, dtype=dtype, name="embedded_grid")
    outputs = {"grid": to_grid(stages[0].before, grid)}
    for stage in stages:
        background = outputs["grid"]
        if stage.kept is not None:
            outputs[f"kept_{stage.start}"] = stage.kept
            outputs[f"keep_logits_{stage.start}"] = stage.logits
        for number, tokens in stage.blocks.items():
            settings = {"dtype": dtype, "name": f"block_{number}_grid"}
            if stage.kept is None:
                laid_out = layers.TokensToGrid(1, **settings)(tokens, grid)
            else:
                to_grid = layers.KeptTokensToGrid(1, **settings)
                laid_out = to_grid(tokens, stage.kept, background)
            outputs.update(
                {f"block_{number}": tokens, f"block_{number}_grid": laid_out}
            )
            outputs["grid"] = laid_out
    return outputs


def _class_token(tokens: Tensor, size: ViTSize, epsilon: float, dtype: Any) -> Tensor:
    return pool(
        tokens,
        "token",
        num_prefix_tokens=1,
        num_heads=size.num_heads,
        mlp_dim=size.mlp_dim,
        epsilon=epsilon,
        dtype=dtype,
    )
