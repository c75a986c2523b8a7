"""The layers that prune or mix tokens for `test_every_layer`."""

from typing import Any

import keras
import numpy as np

from kvision import layers
from tests.layers.harness import BATCH

RNG = np.random.default_rng(2)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def permutations(length: int) -> np.ndarray:
    return np.stack([RNG.permutation(length) for _ in range(BATCH)]).astype(np.int32)


TOKENS = normal(BATCH, 2 + 12, 8)
GRID = normal(BATCH, 4, 5, 8)
KEPT = permutations(20)[:, :12]
COARSE, FINE = normal(BATCH, 2, 3, 8), normal(BATCH, 4, 6, 8)
REGIONS = np.tile(np.float32([[3, 2, 9, 5], [0, 0, 0, 0]]), (BATCH, 1, 1))

CASES: list[tuple[type[keras.layers.Layer], dict, tuple, dict[str, Any]]] = [
    (
        layers.TokenScorer,
        {"num_prefix_tokens": 2, "epsilon": 1e-3},
        (TOKENS,),
        {"gradients_to": (0,)},
    ),
    (
        layers.TokenPruning,
        {"keep_ratio": 0.35, "loss_weight": 1.0, "num_prefix_tokens": 2, "seed": 3},
        (
            TOKENS,
            permutations(12).astype(np.float32),
            GRID,
            np.ones((BATCH, 14), np.float32),
            KEPT,
        ),
        {"gradients_to": (0,), "no_gradients_to": (1, 2)},
    ),
    (
        layers.PrunedTransformerBlock,
        {
            "attention": layers.SelfAttention(2),
            "mlp": layers.MLP(12),
            "epsilon": 1e-3,
            "layer_scale": 0.5,
            "drop_path": 0.2,
            "recompute": True,
        },
        (TOKENS,),
        {"gradients_to": (0,)},
    ),
    (
        layers.KeptTokensToGrid,
        {"num_prefix_tokens": 2},
        (TOKENS, KEPT, GRID),
        {"gradients_to": (0, 2)},
    ),
    (
        layers.DetailScores,
        {"patch_size": (4, 6)},
        (RNG.uniform(0, 255, (BATCH, 9, 17, 3)).astype(np.float32),),
        {"always_float32": True, "gradients_to": (0,)},
    ),
    (
        layers.RegionScores,
        {"patch_size": (4, 6)},
        (RNG.uniform(0, 9, (BATCH, 2, 3)).astype(np.float32), REGIONS),
        {"always_float32": True, "no_gradients_to": (1,)},
    ),
    (
        layers.MultiScalePositionEmbedding,
        {"interpolation": "bicubic"},
        (COARSE, normal(BATCH, 3, 5, 8)),
        {"gradients_to": (0, 1)},
    ),
    (
        layers.MixedPatches,
        {"fine_cells": 0.4},
        (COARSE, FINE, permutations(6).astype(np.float32).reshape(BATCH, 2, 3)),
        {"gradients_to": (0, 1), "no_gradients_to": (2,)},
    ),
    (
        layers.MixedTokensToGrid,
        {"num_prefix_tokens": 2},
        (normal(BATCH, 2 + 6 + 3 * 2, 8), permutations(6), COARSE),
        {"gradients_to": (0,)},
    ),
]
