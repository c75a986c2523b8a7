"""Layers and weight decay of every weight: those of timm's parameter groups."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvision import models
from kvision.train.layer_decay import is_decayed, layer_ids, rate_scales

GOLDEN = Path(__file__).parents[1] / "golden" / "torch_optimizers.npz"

# Paths of ours, in parts, to names of timm.
TO_TIMM = (
    (r"^class_token/tokens$", "cls_token"),
    (r"^distillation_token/tokens$", "dist_token"),
    (r"^position_embedding/table$", "pos_embed"),
    (r"^stage(\d)_position_embedding/convolution", r"pos_block.\1.proj.0"),
    (r"^stage(\d)_patch_embedding/norm", r"patch_embeds.\1.norm"),
    (r"^stage(\d)_patch_embedding", r"patch_embeds.\1.proj"),
    (r"^patch_embedding", "patch_embed.proj"),
    (r"^stage(\d)_block_(\d+)", r"blocks.\1.\2"),
    (r"^block_(\d+)", r"blocks.\1"),
    (r"/attention/reduce/norm/", "/attn/norm/"),
    (r"/attention/reduce/", "/attn/sr/"),
    (r"/attention/query/", "/attn/q/"),
    (r"/attention/key_value/", "/attn/kv/"),
    (r"/attention/projection/", "/attn/proj/"),
    (r"/attention/", "/attn/"),
    (r"/(kernel|gamma)$", "/weight"),
    (r"/beta$", "/bias"),
    (r"/", "."),
)


def timm_name(path: str) -> str:
    for pattern, replacement in TO_TIMM:
        path = re.sub(pattern, replacement, path)
    return path


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("vit_tiny_patch16_224", lambda **size: models.vit("Ti/16", **size)),
        (
            "deit_tiny_distilled_patch16_224",
            lambda **size: models.deit("Ti/16", distilled=True, **size),
        ),
        ("twins_svt_small", lambda **size: models.twins_svt("S", **size)),
        ("twins_pcpvt_small", lambda **size: models.twins_pcpvt("S", **size)),
    ],
)
def test_scales_and_weight_decay_are_those_of_timm(name: str, build: Any) -> None:
    with np.load(GOLDEN) as golden:
        groups = json.loads(str(golden[f"groups/{name}"]))
    model = build(num_classes=3, image_size=(32, 32))
    variables = model.trainable_variables
    scales = rate_scales([v.path for v in variables], 0.5)
    found = {
        timm_name(v.path): [scale, float(is_decayed(v.path, len(v.shape)))]
        for v, scale in zip(variables, scales, strict=True)
    }
    assert found == groups


def test_layers_of_a_sequence() -> None:
    paths = ["patch_embedding/kernel", "class_token/tokens", "pre_norm/gamma"]
    paths += ["block_0/norm1/gamma", "position_bias_1/table", "block_1/mlp/fc1/kernel"]
    paths += ["block_10/mlp/fc1/kernel", "norm/gamma", "pool/probe", "head_dist/bias"]
    assert layer_ids(paths) == [0, 0, 0, 1, 2, 2, 3, 3, 4, 4]


def test_stages_of_a_resnet_before_the_blocks_are_its_stem() -> None:
    paths = ["stem_conv/kernel", "stage0_block0_1_conv/kernel", "stage3_x/kernel"]
    paths += ["patch_embedding/kernel", "block_0/norm1/gamma", "head/kernel"]
    assert layer_ids(paths) == [0, 0, 0, 0, 1, 2]


def test_scales_by_hand() -> None:
    paths = ["patch_embedding/kernel", "block_0/a", "block_1/a", "head/kernel"]
    np.testing.assert_allclose(rate_scales(paths, 0.7), [0.343, 0.49, 0.7, 1.0])
    # Without a head the last block still has its own place.
    np.testing.assert_allclose(rate_scales(paths[:3], 0.7), [0.343, 0.49, 0.7])


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layers named block_0.*this one has conv, x"):
        rate_scales(["conv/kernel", "conv/bias", "x/y"], 0.5)


@pytest.mark.parametrize("decay", [0.0, 1.5])
def test_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=f"at most 1. Received: {decay}"):
        rate_scales(["block_0/a"], decay)


@pytest.mark.parametrize(
    ("path", "rank", "decayed"),
    [
        ("head/kernel", 2, True),
        ("conv2d_1/depthwise_kernel", 4, True),
        ("head/bias", 1, False),
        ("block_0/norm1/gamma", 1, False),
        ("block_0/layer_scale1/gamma", 1, False),
        ("position_embedding/table", 3, False),
        ("position_bias_2/table", 2, False),
        ("register_tokens/tokens", 3, False),
        ("position_embedding/convolution/kernel", 4, False),
        ("kernel", 2, True),
    ],
)
def test_only_kernels_decay(path: str, rank: int, decayed: bool) -> None:
    assert is_decayed(path, rank) is decayed
