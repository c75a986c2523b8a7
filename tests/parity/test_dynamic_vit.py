"""DynamicViT with a file of its authors against their arithmetic in NumPy."""

import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kvision as kv
from kvision.models.classifier import IMAGENET
from tests.ops.modes import to_numpy
from tests.parity import numpy_dynamic_vit as theirs
from tests.parity.compare import assert_equal
from tests.parity.seeded import images_for
from tests.parity.timm_seeded import weights_for

NUMBERS = theirs.Numbers(num_heads=2, prune_at=(1, 2), keep_ratio=0.7)
WIDTH, DEPTH, CLASSES = 128, 4, 10
SIZE = (48, 48)  # 36 patches of 8
BATCH = 3
Weights = dict[str, np.ndarray]


def build(**arguments: Any) -> keras.Model:
    return kv.models.dynamic_vit(
        "Lite-4/8",
        NUMBERS.keep_ratio,
        NUMBERS.prune_at,
        **{"image_size": SIZE, "num_classes": CLASSES, **arguments},
    )


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of `VisionTransformerDiffPruning`, written down once more."""
    found: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 37, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 8, 8),
        "patch_embed.proj.bias": (WIDTH,),
    }

    def linear(name: str, inputs: int, outputs: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (WIDTH,)

    for number in range(DEPTH):
        name = f"blocks.{number}"
        norm(f"{name}.norm1")
        linear(f"{name}.attn.qkv", WIDTH, 3 * WIDTH)
        linear(f"{name}.attn.proj", WIDTH, WIDTH)
        norm(f"{name}.norm2")
        linear(f"{name}.mlp.fc1", WIDTH, WIDTH)
        linear(f"{name}.mlp.fc2", WIDTH, WIDTH)
    norm("norm")
    linear("head", WIDTH, CLASSES)
    for number in range(len(NUMBERS.prune_at)):
        name = f"score_predictor.{number}"
        norm(f"{name}.in_conv.0")
        linear(f"{name}.in_conv.1", WIDTH, WIDTH)
        linear(f"{name}.out_conv.0", WIDTH, WIDTH // 2)
        linear(f"{name}.out_conv.2", WIDTH // 2, WIDTH // 4)
        linear(f"{name}.out_conv.4", WIDTH // 4, 2)
    return found


def seeded() -> Weights:
    return {name: weights_for(name, shape) for name, shape in shapes().items()}


def decided() -> Weights:
    """Scores so far apart that the noise of training does not matter.

    Shifted so that the first pruning keeps most patches, the second half of these.
    """
    weights = seeded()
    for number, shift in enumerate((-0.05, 0.15)):
        last = f"score_predictor.{number}.out_conv.4"
        weights[f"{last}.bias"] += np.array([shift, -shift], np.float32)
        for kind in ("weight", "bias"):
            weights[f"{last}.{kind}"] *= 1e5
    return weights


def load(model: keras.Model, weights: Weights, folder: Path, **arguments: Any) -> None:
    """As its authors write them: under "model", beside what training kept."""
    path = folder / "dynamic-vit_lite_r0.7.pth"
    path.write_bytes(pickle.dumps({"model": weights, "epoch": 29}))
    report = kv.weights.load(model, path, **arguments)
    assert report.source == "timm"
    assert report.resized + report.fresh == ()
    assert set(report.matched) | set(report.unused) == set(weights)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return images_for(BATCH, SIZE)


def normalised(images: np.ndarray) -> np.ndarray:
    mean, std = (np.array(values) for values in IMAGENET)
    return (images.astype(np.float64) - mean) / std


def test_inference(images: np.ndarray, tmp_path: Path) -> None:
    weights = seeded()
    expected, kept = theirs.inference(weights, normalised(images), NUMBERS)
    model, features = build(), build(features=True)
    load(model, weights, tmp_path)
    load(features, weights, tmp_path, unused=["head."])
    assert_equal(to_numpy(model(images)), expected, "logits")
    outputs = to_numpy(features(images))
    assert [places.shape for places in kept] == [(BATCH, 25), (BATCH, 17)]
    for number, places in zip(NUMBERS.prune_at, kept, strict=True):
        np.testing.assert_array_equal(outputs[f"kept_{number}"], places)


def test_training(images: np.ndarray, tmp_path: Path) -> None:
    weights = decided()
    expected, decisions = theirs.training(weights, normalised(images), NUMBERS)
    shares = [decision.mean() for decision in decisions]
    assert 0.2 < shares[1] < shares[0] - 0.2 < 0.7
    model = build()
    load(model, weights, tmp_path)
    assert_equal(to_numpy(model(images, training=True)), expected, "logits")
    losses = [
        ((decision.mean(1) - 0.7**number) ** 2).mean()
        for number, decision in enumerate(decisions, 1)
    ]
    np.testing.assert_allclose(sum(model.losses), 2.0 * np.mean(losses), rtol=1e-5)


def test_what_is_left_out_would_be_noticed(images: np.ndarray) -> None:
    """Other patches, another result: the comparison can fail."""
    weights = seeded()
    for name in (
        "score_predictor.0.out_conv.4.weight",
        "score_predictor.1.in_conv.0.bias",
    ):
        other = {**weights, name: -weights[name]}
        first, _ = theirs.inference(weights, normalised(images), NUMBERS)
        second, _ = theirs.inference(other, normalised(images), NUMBERS)
        assert np.abs(first - second).max() > 1e-2 * np.abs(first).max()
