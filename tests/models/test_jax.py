"""Transformers on Keras' JAX backend compute what they compute on TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kvision import layers, models
from kvision.models.twins import TwinsSize, build_twins
from tests.conftest import REPOSITORY
from tests.models.small_vit import tiny  # noqa: F401  (a fixture for every test)

pytest.importorskip("jax", reason="needs jax: pip install 'jax[cpu]'")

pytestmark = pytest.mark.slow  # another process, in which JAX starts

SETTINGS: dict[str, Any] = {"num_classes": 5, "image_size": (32, 40)}


def transformers() -> dict[str, keras.Model]:
    twins = TwinsSize(
        (8, 16, 24, 32), (2, 1, 2, 1), (1, 2, 3, 4), (2, 2, 1, 1), window_size=4
    )
    return {
        "vit": models.vit("tiny/8", **SETTINGS),
        "deit_distilled": models.deit("tiny/8", distilled=True, **SETTINGS),
        "deit3": models.deit3("tiny/8", **SETTINGS),
        "conv_vit": models.conv_vit("tiny/8", **SETTINGS),
        "twins_svt": build_twins(twins, **SETTINGS),
        "twins_pcpvt": build_twins(twins._replace(window_size=None), **SETTINGS),
        "dynamic_vit": models.dynamic_vit("tiny/8", prune_at=(1, 2), **SETTINGS),
        "mixed_resolution_vit": models.mixed_resolution_vit("tiny/8", 5, **SETTINGS),
    }


def disturb(model: keras.Model, rng: np.random.Generator) -> None:
    """Move every weight: many begin at 0 or 1, where they hide mistakes."""
    for weight in model.trainable_weights:
        weight.assign(weight + rng.normal(scale=0.1, size=weight.shape))
    for layer in model.layers:
        if isinstance(layer, layers.TokenScorer):
            # The choice of patches must not turn on roundings.
            layer.out_dense3.kernel.assign(1000 * layer.out_dense3.kernel)


def test_logits_are_those_of_tensorflow(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 32, 40, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    expected = {}
    for name, model in transformers().items():
        disturb(model, rng)
        model.save(tmp_path / f"{name}.keras")
        expected[name] = np.asarray(model(images, training=False))
    run = subprocess.run(
        [sys.executable, "-m", "tests.models.on_jax", str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    for name, logits in expected.items():
        limit = 1e-4 * np.abs(logits).max()
        assert np.ptp(logits, axis=0).min() > 10 * limit  # images are told apart
        got = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(got, logits, rtol=0, atol=limit, err_msg=name)
