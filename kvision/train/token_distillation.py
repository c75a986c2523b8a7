"""Distillation of tokens: kept patches learn what the teacher makes of them."""

from typing import Any

import keras
from keras import ops

from kvision.layers import TokenPruning

__all__ = ["kept_tokens", "token_loss", "with_tokens"]

Tensor = Any

_TOKENS = "norm"  # the layer that gives the last tokens of kvision's transformers


def kept_tokens(student: keras.Model) -> tuple[Tensor, Tensor]:
    """Find the last tokens of a student, and which of them are kept in training.

    Args:
        student: model of `kvision.models.dynamic_vit`.

    Returns:
        Outputs of its layers: tokens (B, 1 + N, D), normalised, and `keep` (B, 1 + N).

    Raises:
        ValueError: the student gives up no patches.
    """
    prunings = _prunings(student)
    if not prunings:
        raise ValueError(
            "token_weight is for students that give up patches "
            f"(kvision.models.dynamic_vit). Received: {student.name!r}"
        )
    return student.get_layer(_TOKENS).output, prunings[-1].output[1]


def with_tokens(teacher: keras.Model, student: keras.Model) -> keras.Model:
    """Let a teacher give its last tokens too.

    Args:
        teacher: a transformer whose patches are those of the student.
        student: the student, which gives up patches.

    Returns:
        Model over the teacher's layers, from images to [logits, tokens (B, 1 + N, D)].

    Raises:
        ValueError: the two have no tokens that can be compared.
    """
    found = [layer.output for layer in teacher.layers if layer.name == _TOKENS]
    wanted = _prunings(student)[0].input[0].shape
    shapes = [(student.input.shape[1:3], wanted[1:])]
    shapes += [(teacher.input.shape[1:3], tokens.shape[1:]) for tokens in found]
    # A teacher that gives up patches puts them in another order.
    if len(shapes) < 2 or shapes[0] != shapes[1] or _prunings(teacher):
        raise ValueError(
            "token_weight compares tokens place by place: the teacher must be a "
            "transformer with one class token, of the student's image size, patches "
            "and width, that gives up no patches, such as kvision.models.deit of the "
            "student's variant. Received, as image size and tokens: "
            + " and ".join(f"{tuple(size)}, {tuple(shape)}" for size, shape in shapes)
        )
    return keras.Model(teacher.input, [teacher.output, found[0]])


def token_loss(tokens: Tensor, target: Tensor, keep: Tensor) -> Tensor:
    """Average the squared errors of the patches that are kept.

    Args:
        tokens: (B, 1 + N, D), the student's, the class token first.
        target: (B, 1 + N, D), the teacher's.
        keep: (B, 1 + N) of 0 and 1. It receives no gradient: a patch is not to be
            given up because its error is large.

    Returns:
        Scalar: the mean over channels and over all patches of the batch that are kept;
        0 where there are none.

    Source: Rao et al. 2021, DynamicViT, section 3.3; raoyongming/DynamicViT, losses.py
    (DistillDiffPruningLoss with mse_token).
    """
    errors = ops.mean(ops.square(tokens - target), axis=-1)[:, 1:]
    keep = ops.stop_gradient(keep)[:, 1:]
    return ops.sum(keep * errors) / ops.maximum(ops.sum(keep), 1.0)


def _prunings(model: keras.Model) -> list[Any]:
    return [layer for layer in model.layers if isinstance(layer, TokenPruning)]
