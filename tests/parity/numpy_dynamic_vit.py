"""DynamicViT in NumPy, float64, by the names of its authors' files.

An independent implementation, slow and plain, after raoyongming/DynamicViT,
models/dyvit.py (PredictorLG, softmax_with_policy, VisionTransformerDiffPruning); it
shares nothing with kvision.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray
Weights = Mapping[str, Array]


class Numbers(NamedTuple):
    """What is not in a file.

    Attributes:
        num_heads: of the attention.
        prune_at: numbers of the blocks before which tokens are given up.
        keep_ratio: rho.
    """

    num_heads: int
    prune_at: Sequence[int]
    keep_ratio: float


def inference(
    weights: Weights, images: Array, numbers: Numbers
) -> tuple[Array, list[Array]]:
    """Run the model as it is evaluated: tokens that are given up are gone.

    Args:
        weights: by name.
        images: (B, H, W, 3), normalised.
        numbers: see `Numbers`.

    Returns:
        Logits (B, K), and for each pruning where the patches that are left lie in the
        image (B, N), the best first.
    """
    x = embedded(weights, images)
    rows = np.arange(len(x))[:, None]
    total = x.shape[1] - 1
    places = np.tile(np.arange(total), (len(x), 1))
    kept = []
    for number in range(depth_of(weights)):
        if number in numbers.prune_at:
            stage = len(kept)
            there = np.ones((*places.shape, 1))
            score = predictor(weights, stage, x[:, 1:], there)[:, :, 0]
            count = int(total * numbers.keep_ratio ** (stage + 1))
            best = np.argsort(-score, axis=1)[:, :count]
            x = np.concatenate([x[:, :1], x[:, 1:][rows, best]], axis=1)
            places = places[rows, best]
            kept.append(places)
        x = block(weights, number, x, numbers.num_heads, None)
    return head(weights, x), kept


def training(
    weights: Weights, images: Array, numbers: Numbers
) -> tuple[Array, list[Array]]:
    """Run the model as it is trained, but with the likelier decision for each token.

    Args:
        weights: by name.
        images: (B, H, W, 3), normalised.
        numbers: see `Numbers`.

    Returns:
        Logits (B, K), and for each pruning the decisions (B, N) of 0 and 1.
    """
    x = embedded(weights, images)
    decision = np.ones((len(x), x.shape[1] - 1, 1))
    decisions: list[Array] = []
    for number in range(depth_of(weights)):
        if number in numbers.prune_at:
            scores = predictor(weights, len(decisions), x[:, 1:], decision)
            keep = (scores[:, :, :1] > scores[:, :, 1:]).astype(float)
            decision = keep * decision
            decisions.append(decision[:, :, 0])
        policy = np.concatenate([np.ones((len(x), 1, 1)), decision], axis=1)
        x = block(weights, number, x, numbers.num_heads, policy)
    return head(weights, x), decisions


def embedded(weights: Weights, images: Array) -> Array:
    kernel = weights["patch_embed.proj.weight"]  # (D, 3, p, p)
    side = kernel.shape[-1]
    batch, height, width, _ = images.shape
    patches = images.reshape(batch, height // side, side, width // side, side, 3)
    x = np.einsum("bhiwjc,dcij->bhwd", patches, kernel)
    x = x.reshape(batch, -1, len(kernel)) + weights["patch_embed.proj.bias"]
    token = np.broadcast_to(weights["cls_token"], (batch, 1, x.shape[-1]))
    return np.concatenate([token, x], axis=1) + weights["pos_embed"]


def depth_of(weights: Weights) -> int:
    return len({name.split(".")[1] for name in weights if name.startswith("blocks.")})


def predictor(weights: Weights, number: int, x: Array, policy: Array) -> Array:
    """Return the logarithms of the chances to be kept and to be dropped (B, N, 2)."""
    name = f"score_predictor.{number}"
    x = norm(weights, f"{name}.in_conv.0", x, 1e-5)
    x = gelu(linear(weights, f"{name}.in_conv.1", x))
    local, shared = np.split(x, 2, axis=-1)
    mean = (shared * policy).sum(1, keepdims=True) / policy.sum(1, keepdims=True)
    x = np.concatenate([local, np.broadcast_to(mean, shared.shape)], axis=-1)
    x = gelu(linear(weights, f"{name}.out_conv.0", x))
    x = gelu(linear(weights, f"{name}.out_conv.2", x))
    x = linear(weights, f"{name}.out_conv.4", x)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def block(
    weights: Weights, number: int, x: Array, num_heads: int, policy: Array | None
) -> Array:
    name = f"blocks.{number}"
    y = norm(weights, f"{name}.norm1", x, 1e-6)
    x = x + attention(weights, f"{name}.attn", y, num_heads, policy)
    y = gelu(
        linear(weights, f"{name}.mlp.fc1", norm(weights, f"{name}.norm2", x, 1e-6))
    )
    return x + linear(weights, f"{name}.mlp.fc2", y)


def attention(
    weights: Weights, name: str, x: Array, num_heads: int, policy: Array | None
) -> Array:
    batch, length, width = x.shape
    qkv = linear(weights, f"{name}.qkv", x)
    qkv = qkv.reshape(batch, length, 3, num_heads, width // num_heads)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    logits = q @ k.swapaxes(-1, -2) / math.sqrt(width // num_heads)
    scores = softmax(logits) if policy is None else softmax_with_policy(logits, policy)
    mixed = (scores @ v).swapaxes(1, 2).reshape(x.shape)
    return linear(weights, f"{name}.proj", mixed)


def softmax(logits: Array) -> Array:
    scores = np.exp(logits - logits.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


def softmax_with_policy(logits: Array, policy: Array, epsilon: float = 1e-6) -> Array:
    """Every token sees itself; others only as far as they are there."""
    length = logits.shape[-1]
    sees = policy[:, None, None, :, 0]
    sees = sees + (1 - sees) * np.eye(length)
    weighted = np.exp(logits - logits.max(-1, keepdims=True)) * sees
    total = weighted.sum(-1, keepdims=True)
    return (weighted + epsilon / length) / (total + epsilon)


def head(weights: Weights, x: Array) -> Array:
    return linear(weights, "head", norm(weights, "norm", x, 1e-6)[:, 0])


def linear(weights: Weights, name: str, x: Array) -> Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights: Weights, name: str, x: Array, epsilon: float) -> Array:
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Array) -> Array:
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
