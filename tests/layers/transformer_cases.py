"""The layers of Vision Transformers for `test_every_layer`."""

from typing import Any

import keras
import numpy as np

from kvision import layers
from tests.layers.harness import BATCH

RNG = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


TOKENS = normal(BATCH, 2 + 4 * 5, 8)
GRID = normal(BATCH, 4, 5, 8)

CASES: list[tuple[type[keras.layers.Layer], dict, tuple, dict[str, Any]]] = [
    (
        layers.ImagePreprocessing,
        {
            "mean": [1.0, 2.0, 3.0],
            "std": [50.0, 60.0, 70.0],
            "resize": "pad",
            "crop_fraction": 0.5,
            "interpolation": "bilinear",
            "reverse_channels": True,
        },
        (RNG.uniform(0, 255, (BATCH, 6, 5, 3)).astype(np.float32),),
        {"gradients_to": (0,)},
    ),
    (
        layers.PatchEmbedding,
        {
            "embed_dim": 8,
            "patch_size": (4, 3),
            "form": "dense",
            "use_bias": False,
            "epsilon": 1e-3,
        },
        (normal(BATCH, 10, 9, 3),),
        {"gradients_to": (0,)},
    ),
    (layers.ClassToken, {"num_tokens": 3}, (TOKENS,), {"gradients_to": (0,)}),
    (
        layers.PositionEmbedding,
        {"num_prefix_tokens": 2, "table_grid": (3, 7), "interpolation": "bicubic"},
        (TOKENS, GRID),
        {"gradients_to": (0,)},
    ),
    (
        layers.SinCosPositionEmbedding1D,
        {"temperature": 100.0},
        (TOKENS,),
        {"gradients_to": (0,)},
    ),
    (
        layers.SinCosPositionEmbedding2D,
        {"num_prefix_tokens": 2, "temperature": 100.0},
        (TOKENS, GRID),
        {"gradients_to": (0,)},
    ),
    (
        layers.RelativePositionBias,
        {"num_heads": 2, "num_prefix_tokens": 1, "interpolation": "bilinear"},
        (GRID,),
        {},
    ),
    (layers.PositionEncodingGenerator, {}, (GRID,), {"gradients_to": (0,)}),
    (layers.TokensToGrid, {"num_prefix_tokens": 2}, (TOKENS, GRID), {}),
    (
        layers.SelfAttention,
        {
            "num_heads": 2,
            "use_bias": False,
            "qk_norm_epsilon": 1e-5,
            "attention_dropout": 0.3,
            "dropout": 0.2,
        },
        (TOKENS,),
        {"gradients_to": (0,)},
    ),
    (
        layers.MLP,
        {"hidden_dim": 12, "activation": "gelu_tanh", "dropout": 0.2},
        (TOKENS,),
        {"gradients_to": (0,)},
    ),
    (
        layers.SwiGLU,
        {"hidden_dim": 12, "dropout": 0.2},
        (TOKENS,),
        {"gradients_to": (0,)},
    ),
    (layers.DropPath, {"rate": 0.3, "seed": 4}, (TOKENS,), {"gradients_to": (0,)}),
    (
        layers.PatchDropout,
        {"rate": 0.3, "num_prefix_tokens": 2, "seed": 4},
        (TOKENS,),
        {"gradients_to": (0,)},
    ),
    (layers.LayerScale, {"initial_value": 0.3}, (TOKENS,), {"gradients_to": (0,)}),
    (
        layers.TransformerBlock,
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
    (layers.TokenPooling, {"index": 1}, (TOKENS,), {"gradients_to": (0,)}),
    (
        layers.AveragePooling,
        {"num_prefix_tokens": 2},
        (TOKENS,),
        {"gradients_to": (0,)},
    ),
    (
        layers.AttentionPooling,
        {"num_heads": 2, "mlp_dim": 12, "epsilon": 1e-3, "activation": "relu"},
        (TOKENS,),
        {"gradients_to": (0,)},
    ),
    (
        layers.ConvStem,
        {"embed_dim": 8, "num_halvings": 2, "momentum": 0.8, "epsilon": 1e-3},
        (normal(BATCH, 9, 8, 3),),
        {"gradients_to": (0,)},
    ),
    (
        layers.PatchifyStem,
        {"embed_dim": 8, "stem_dim": 6, "patch_size": 8, "epsilon": 1e-3},
        (normal(BATCH, 16, 12, 3),),
        {"gradients_to": (0,)},
    ),
    (
        layers.StandardizedConv2D,
        {
            "filters": 5,
            "kernel_size": (3, 2),
            "standardization_epsilon": 1e-3,
            "deviation_epsilon": 1e-2,
        },
        (GRID,),
        {"gradients_to": (0,)},
    ),
    (
        layers.GroupNormalization,
        {"groups": 4, "epsilon": 1e-3},
        (GRID,),
        {"gradients_to": (0,)},
    ),
    (
        layers.ClassificationHead,
        {
            "num_classes": 3,
            "class_names": ["a", "b", "c"],
            "kernel_initializer": "glorot_uniform",
        },
        (normal(BATCH, 8),),
        {"gradients_to": (0,)},
    ),
    (
        layers.MeanLogits,
        {},
        (normal(BATCH, 3), normal(BATCH, 3)),
        {"gradients_to": (0, 1), "always_float32": True},
    ),
    (
        layers.LayerNormalization,
        {"epsilon": 1e-2},
        (normal(BATCH, 5, 8),),
        {"gradients_to": (0,)},
    ),
]
