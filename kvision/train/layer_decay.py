"""Which layer a weight belongs to, by its path: for learning rates and weight decay.

In fine-tuning the first layers of a network should change less than the last. Each
block's learning rate is that of the next times a factor; the embedding comes before
the first block, the head after the last.
"""

import re
from collections.abc import Sequence

__all__ = ["is_decayed", "layer_ids", "rate_scales"]

_BLOCK = re.compile(r"^(?:stage_?(\d+)_)?(?:block|position_bias)_?(\d+)$")
_STAGE = re.compile(r"^stage_?(\d+)_")
_EMBEDDING = re.compile(
    r"^(patch_embedding|position_embedding|class_token|distillation_token|"
    r"register_token|stem|pre_norm)"
)
_FINAL_NORM = "norm"


def layer_ids(paths: Sequence[str]) -> list[int]:
    """Number the layers of a transformer, those of timm's `param_groups_layer_decay`.

    The first part of a path decides. "patch_embedding", "position_embedding", tokens
    and whatever begins with "stem" are 0; "block_{i}" is i + 1, with its
    "position_bias_{i}". In hierarchical models the blocks "stage{s}_block_{i}" are
    counted through, and other layers of a stage ("stage{s}_patch_embedding", ...)
    belong to its first block, the embedding of the first stage to 0. The stages of a
    ResNet before a transformer are 0 too. The last normalisation ("norm") belongs to
    the last block. All else ("head", ...) is the number of blocks plus 1.

    Args:
        paths: paths of the variables of one model, such as "block_0/mlp/fc1/kernel".

    Returns:
        A number for each.

    Raises:
        ValueError: no path is in a block.

    Source: huggingface/pytorch-image-models, timm/optim/_param_groups.py and the
    `group_matcher` of vision_transformer.py and twins.py.
    """
    names = [path.partition("/")[0] for path in paths]
    blocks = sorted({block for name in names if (block := _block(name)) is not None})
    if not blocks:
        raise ValueError(
            "layer_decay needs a model with layers named block_0, block_1, ... or "
            f"stage0_block_0, ...; this one has {', '.join(dict.fromkeys(names))}"
        )
    numbers = {block: number for number, block in enumerate(blocks, start=1)}
    if not any(_STAGE.match(name) and _block(name) for name in names):
        # One sequence of blocks; stages are of a convolutional network before it.
        names = ["stem" if _STAGE.match(name) else name for name in names]
    return [_layer_id(name, numbers) for name in names]


def rate_scales(paths: Sequence[str], layer_decay: float) -> list[float]:
    """Compute by what each variable's learning rate is multiplied.

    Args:
        paths: as for `layer_ids`.
        layer_decay: factor from a layer to the one before, in (0, 1].

    Returns:
        A factor for each: 1 for the head, `layer_decay` for the last block, ...
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(
            f"layer_decay must be above 0 and at most 1. Received: {layer_decay}"
        )
    ids = layer_ids(paths)
    # The head's, whether there is one or not.
    last = 1 + max(n for n, path in zip(ids, paths, strict=True) if _is_block(path))
    return [float(layer_decay ** (last - number)) for number in ids]


def is_decayed(path: str, rank: int) -> bool:
    """Say whether weight decay acts on a variable: on kernels and on nothing else.

    Not on biases, normalisation, position tables, tokens, layer scales, and not on the
    kernel of a convolution that encodes positions (Twins).

    Args:
        path: of the variable.
        rank: number of its axes.

    Returns:
        Whether it does.
    """
    *layers, name = path.split("/")
    encodes_positions = any("position" in layer for layer in layers)
    return name.endswith("kernel") and rank > 1 and not encodes_positions


def _is_block(path: str) -> bool:
    return _block(path.partition("/")[0]) is not None


def _block(name: str) -> tuple[int, int] | None:
    match = _BLOCK.match(name)
    return (int(match[1] or 0), int(match[2])) if match else None


def _layer_id(name: str, numbers: dict[tuple[int, int], int]) -> int:
    block = _block(name)
    if block is not None:
        return numbers[block]
    if (stage := _STAGE.match(name)) is not None:
        first_block = (int(stage[1]), 0)
        is_stem = stage[1] == "0" and "patch_embedding" in name
        return 0 if is_stem else numbers[first_block]
    if _EMBEDDING.match(name):
        return 0
    return len(numbers) + (0 if name == _FINAL_NORM else 1)
