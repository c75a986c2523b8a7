"""Mixed resolution: between a coarse and a fine Vision Transformer."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvision
from kvision.export.conversion import convert_function
from kvision.export.flatbuffer import check_builtin
from kvision.export.interpreter import runner
from tests.export.graph import parse
from tests.models.small_vit import tiny  # noqa: F401  (a fixture for every test)

RNG = np.random.default_rng(0)
IMAGE_SIZE = (32, 40)  # 4 x 5 cells of 8
IMAGES = RNG.integers(0, 256, (4, *IMAGE_SIZE, 3)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 0])
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def model(fine_cells: int | float = 5, **arguments: Any) -> keras.Model:
    settings = {"num_classes": 3, "image_size": IMAGE_SIZE, **arguments}
    built = kvision.models.mixed_resolution_vit("tiny/8", fine_cells, **settings)
    if "head" in [layer.name for layer in built.layers]:
        kernel = built.get_layer("head").kernel
        kernel.assign(np.random.default_rng(5).normal(size=kernel.shape))
    return built


def uniform(mixed: keras.Model, patch: int, embedding: str, scale: int) -> keras.Model:
    """Make a plain ViT of one of the sizes with the weights of a mixed one."""
    plain = kvision.models.vit(
        f"tiny/{patch}", num_classes=3, image_size=IMAGE_SIZE, prefix_positions=False
    )
    place = mixed.get_layer("position_embedding")
    table = place.table.numpy()
    if scale == 0:
        table = table.reshape(4, 2, 5, 2, -1).mean(axis=(1, 3))
    plain.get_layer("position_embedding").table.assign(
        table.reshape(1, -1, table.shape[-1])
    )
    kernel = mixed.get_layer(embedding).kernel
    stem = plain.get_layer("patch_embedding")
    stem.set_weights([kernel.numpy(), place.scales.numpy()[scale]])
    done = {"position_embedding", "patch_embedding"}
    for layer in plain.layers:
        if layer.weights and layer.name not in done:
            layer.set_weights(mixed.get_layer(layer.name).get_weights())
    return plain


def test_no_fine_cell_is_a_coarse_model() -> None:
    mixed = model(0)
    plain = uniform(mixed, 8, "patch_embedding", 0)
    np.testing.assert_allclose(mixed(IMAGES), plain(IMAGES), rtol=1e-4, atol=1e-5)


def test_all_fine_cells_are_a_fine_model() -> None:
    mixed = model(1.0)
    plain = uniform(mixed, 4, "fine_patch_embedding", 1)
    np.testing.assert_allclose(mixed(IMAGES), plain(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("fine_cells", "tokens"), [(0, 21), (5, 36), (0.25, 36)])
def test_budget(fine_cells: int | float, tokens: int) -> None:
    built = model(fine_cells)
    assert built.get_layer("block_0").output.shape == (None, tokens, 16)


def test_features_are_in_their_places() -> None:
    """Blocks that add nothing leave what entered: pixels of the place itself."""
    built = model(features=True)
    for number in range(3):
        block = built.get_layer(f"block_{number}")
        for part in (block.attention.projection, block.mlp.fc2):
            for weight in part.weights:
                weight.assign(np.zeros(weight.shape))
    outputs = {name: np.asarray(value) for name, value in built(IMAGES).items()}
    place = built.get_layer("position_embedding")
    coarse, fine = (
        np.asarray(grid)
        for grid in place(
            *(
                built.get_layer(name)(built.get_layer("preprocessing")(IMAGES))
                for name in ("patch_embedding", "fine_patch_embedding")
            )
        )
    )
    scores = np.asarray(built.get_layer("detail_scores")(IMAGES)).reshape(4, -1)
    expected = coarse.repeat(2, axis=1).repeat(2, axis=2)
    for sample in range(4):
        chosen = np.argsort(-scores[sample])[:5]
        assert set(chosen) == set(outputs["cells"][sample, :5])
        for cell in chosen:
            y, x = 2 * (cell // 5), 2 * (cell % 5)
            part = np.s_[sample, y : y + 2, x : x + 2]
            expected[part] = fine[part]
    for name in ("block_0_grid", "block_2_grid"):
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-4, atol=1e-5)
    assert outputs["grid"].shape == (4, 8, 10, 16)


def test_regions_choose() -> None:
    built = model(4, scorer="given", num_regions=2, features=True)
    regions = np.zeros((4, 2, 4), np.float32)
    regions[:, 0] = [9, 1, 23, 15]  # columns 1 and 2 of rows 0 and 1
    regions[3, 0] = 0
    regions[3, 1] = [39, 31, 40, 32]  # the last cell
    cells = np.asarray(built({"images": IMAGES, "regions": regions})["cells"])
    for sample in range(3):
        assert set(cells[sample, :4]) == {1, 2, 6, 7}
    assert cells[3, 0] == 19
    scores = np.asarray(built.get_layer("detail_scores")(IMAGES))[3].reshape(-1)
    rest = [cell for cell in np.argsort(-scores) if cell != 19]
    np.testing.assert_array_equal(cells[3, 1:], rest)


def test_gradients_reach_every_weight() -> None:
    built = model()
    with tf.GradientTape() as tape:
        loss = LOSS(LABELS, built(IMAGES, training=True))
    gradients = tape.gradient(loss, built.trainable_weights)
    for weight, gradient in zip(built.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.any(gradient), weight.path


@pytest.mark.parametrize(
    "scorer", ["given", pytest.param("detail", marks=pytest.mark.slow)]
)
def test_fit_save_load(scorer: str, tmp_path: Path) -> None:
    inputs: Any = IMAGES
    if scorer == "given":
        regions = np.tile(np.float32([[3, 3, 20, 9]]), (4, 2, 1))
        inputs = {"images": IMAGES, "regions": regions}
    built = model(scorer=scorer, num_regions=2, recompute=True, drop_path=0.1)
    built.compile("adamw", LOSS, jit_compile=True)
    history = built.fit(inputs, LABELS, batch_size=4, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    built.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = built.predict(inputs, verbose=0)
    np.testing.assert_allclose(loaded.predict(inputs, verbose=0), expected, atol=1e-5)
    larger = kvision.models.with_image_size(loaded, (48, 40))
    assert larger.get_layer("block_0").output.shape == (None, 1 + 30 + 15, 16)
    same = kvision.models.with_image_size(loaded, IMAGE_SIZE)
    np.testing.assert_allclose(same.predict(inputs, verbose=0), expected, atol=1e-5)


def test_half_precision_chooses_the_same_cells() -> None:
    settings = {"features": True, "num_classes": None}
    half = model(dtype="mixed_bfloat16", **settings)(IMAGES)
    np.testing.assert_array_equal(half["cells"], model(**settings)(IMAGES)["cells"])
    assert half["grid"].dtype == "bfloat16"


@pytest.mark.parametrize(
    ("variant", "image_size", "fine_grid"),
    [
        ("tiny/4", (32, 32), (16, 16)),  # CIFAR; fine patches of 2
        ("tiny/2", (8, 6), (8, 6)),  # single pixels
        ("tiny/8", (28, 28), (8, 8)),  # MNIST: a row and a column filled up
        ("tiny/8", (25, 37), (8, 10)),
        ("tiny/8x4", (16, 16), (4, 8)),
    ],
)
def test_any_size(
    variant: str, image_size: tuple[int, int], fine_grid: tuple[int, int]
) -> None:
    built = kvision.models.mixed_resolution_vit(
        variant, 0.5, image_size=image_size, features=True
    )
    images = RNG.integers(0, 256, (2, *image_size, 3)).astype(np.uint8)
    outputs = built(images)
    assert outputs["grid"].shape == (2, *fine_grid, 16)
    assert np.isfinite(outputs["grid"]).all()


def test_every_form_computes_the_same() -> None:
    built = model(features=True)
    expected = {name: np.asarray(v) for name, v in built(IMAGES).items()}
    xla = tf.function(lambda x: built(x, training=False), jit_compile=True)(IMAGES)
    entry = tf.TensorSpec((1, *IMAGE_SIZE, 3), tf.uint8, name="images")
    content = convert_function(lambda x: dict(built(x, training=False)), entry)
    check_builtin(content)
    (graph,) = parse(content).subgraphs
    assert max(len(t.shape) for t in graph.tensors if t.shape is not None) <= 4
    for outputs in (xla, runner(content)(IMAGES)):
        for name, value in expected.items():
            limit = 1e-4 * np.abs(value).max()
            np.testing.assert_allclose(
                outputs[name], value, rtol=0, atol=limit, err_msg=name
            )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scorer": "learned"}, "one of 'detail', 'given'. Received: 'learned'"),
        ({"scorer": "given", "num_regions": 0}, "num_regions must be 1 or more"),
        ({"fine_cells": 21}, "at most 20"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**arguments)
