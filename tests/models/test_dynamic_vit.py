"""DynamicViT: what training masks, inference leaves out."""

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
from kvision.models.costs import costs_of
from tests.export.graph import operators, parse
from tests.models.small_vit import tiny  # noqa: F401  (a fixture for every test)

RNG = np.random.default_rng(0)
IMAGE_SIZE = (32, 40)  # 4 x 5 patches of 8
IMAGES = RNG.integers(0, 256, (4, *IMAGE_SIZE, 3)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 0])
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def model(**arguments: Any) -> keras.Model:
    settings = {"num_classes": 3, "image_size": IMAGE_SIZE, "prune_at": (1, 2)}
    built = kvision.models.dynamic_vit("tiny/8", **{**settings, **arguments})
    return with_random_head(built)


def with_random_head(built: keras.Model) -> keras.Model:
    if "head" in [layer.name for layer in built.layers]:
        kernel = built.get_layer("head").kernel
        rng = np.random.default_rng(5)
        kernel.assign(rng.normal(size=kernel.shape))
    return built


def scorers(built: keras.Model) -> list[Any]:
    return [one for one in built.layers if isinstance(one, kvision.layers.TokenScorer)]


def pruned_lengths(built: keras.Model) -> list[int]:
    return [
        layer.output[2].shape[1]
        for layer in built.layers
        if isinstance(layer, kvision.layers.TokenPruning)
    ]


def test_published_counts_and_costs() -> None:
    """137, 96 and 67 of 196; 2.9 G multiply-adds where DeiT-S has 4.6 (README)."""
    lengths = []

    def build() -> keras.Model:
        built = kvision.models.dynamic_vit("S/16")
        lengths.extend(pruned_lengths(built))
        return built

    costs = costs_of(build)
    assert lengths == [137, 96, 67]
    d, tokens, classes = 384, [197] * 3 + [138] * 3 + [97] * 3 + [68] * 3, 1000
    blocks = sum(12 * n * d * d + 2 * n * n * d for n in tokens)
    judged = sum(n * (d * d + d * d // 2 + d * d // 8 + d // 2) for n in (196, 137, 96))
    expected = 196 * 16 * 16 * 3 * d + blocks + judged + d * classes
    assert costs.multiply_adds == expected
    assert costs.multiply_adds == pytest.approx(2.9e9, rel=0.03)
    plain = costs_of(lambda: kvision.models.deit("S/16"))
    assert round(plain.multiply_adds / 1e9, 1) == 4.6
    # Each predictor: a normalisation and four products.
    predictor = 2 * d + d * d + d + d * d // 2 + d // 2 + d * d // 8 + d // 4 + d // 2
    assert costs.parameters == plain.parameters + 3 * (predictor + 2)


@pytest.mark.parametrize("training", [True, False])
def test_keeping_all_is_the_plain_model(training: bool) -> None:
    plain = with_random_head(
        kvision.models.deit("tiny/8", num_classes=3, image_size=IMAGE_SIZE)
    )
    pruned = model(keep_ratio=1.0)
    for layer in plain.layers:
        pruned.get_layer(layer.name).set_weights(layer.get_weights())
    for scorer in scorers(pruned):
        scorer.out_dense3.bias.assign([50.0, -50.0])
    np.testing.assert_allclose(
        pruned(IMAGES, training=training),
        plain(IMAGES, training=training),
        rtol=1e-4,
        atol=1e-5,
    )


def test_inference_is_a_gather_of_the_best() -> None:
    features = model(features=True)
    outputs = {name: np.asarray(value) for name, value in features(IMAGES).items()}
    assert outputs["kept_1"].shape == (4, 14)
    assert outputs["kept_2"].shape == (4, 9)
    before = np.tile(np.arange(20), (4, 1))
    grid = outputs["block_0_grid"]
    np.testing.assert_array_equal(
        grid.reshape(4, 20, -1), outputs["block_0"][:, 1:], strict=True
    )
    for number in (1, 2):
        tokens, expected = [], grid.copy()
        for sample in range(4):
            logits = outputs[f"keep_logits_{number}"][sample]
            count = outputs[f"kept_{number}"].shape[1]
            best = np.argsort(-logits, kind="stable")[:count]
            cells = before[sample][best]
            np.testing.assert_array_equal(outputs[f"kept_{number}"][sample], cells)
            came = outputs[f"block_{number - 1}"][sample]
            tokens.append(np.concatenate([came[:1], came[1:][best]]))
            left = outputs[f"block_{number}"][sample, 1:]
            expected[sample, cells // 5, cells % 5] = left
        left = features.get_layer(f"block_{number}")(np.stack(tokens), training=False)
        np.testing.assert_allclose(left, outputs[f"block_{number}"], atol=1e-5)
        grid = outputs[f"block_{number}_grid"]
        np.testing.assert_array_equal(grid, expected)
        before = outputs[f"kept_{number}"]
    np.testing.assert_allclose(
        outputs["grid"], features.get_layer("norm")(grid), atol=1e-5
    )


def test_gradients_reach_every_predictor() -> None:
    built = model(ratio_weight=0.0)
    with tf.GradientTape() as tape:
        loss = LOSS(LABELS, built(IMAGES, training=True))
    gradients = tape.gradient(loss, built.trainable_weights)
    for weight, gradient in zip(built.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.any(gradient), weight.path


def test_ratio_loss_is_the_mean_over_prunings() -> None:
    built = model(keep_ratio=0.6, ratio_weight=3.0)
    for scorer in scorers(built):
        scorer.out_dense3.bias.assign([50.0, -50.0])
    built(IMAGES, training=True)
    expected = [3 / 2 * 0.4**2, 3 / 2 * (1 - 0.36) ** 2]
    np.testing.assert_allclose(built.losses, expected, rtol=1e-4)
    built(IMAGES, training=False)
    assert not built.losses


def test_fit_save_load(tmp_path: Path) -> None:
    built = model(drop_path=0.1, dropout=0.1)
    built.compile("adamw", LOSS, metrics=["accuracy"], jit_compile=True)
    history = built.fit(IMAGES, LABELS, batch_size=4, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    built.evaluate(IMAGES, LABELS, verbose=0)
    built.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = built.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(loaded.predict(IMAGES, verbose=0), expected, atol=1e-5)


def test_recomputation_changes_nothing() -> None:
    def trained(recompute: bool) -> tuple[float, list[np.ndarray]]:
        keras.utils.set_random_seed(1)
        built = model(recompute=recompute)
        built.compile(keras.optimizers.SGD(0.1), LOSS, jit_compile=False)
        loss = built.train_on_batch(IMAGES, LABELS)
        return loss, built.get_weights()

    loss, weights = trained(True)
    expected_loss, expected = trained(False)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for got, value in zip(weights, expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "dtype",
    ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)],
)
def test_half_precision(dtype: str) -> None:
    built = model(dtype=dtype)
    built.compile("adamw", LOSS, jit_compile=False)
    assert np.isfinite(built.train_on_batch(IMAGES, LABELS))
    logits = built(IMAGES)
    assert logits.dtype == "float32"
    outputs = model(dtype=dtype, features=True)(IMAGES)
    assert outputs["keep_logits_1"].dtype == "float32"
    assert outputs["block_1_grid"].dtype == dtype.removeprefix("mixed_")


def test_other_sizes() -> None:
    built = model()
    larger = kvision.models.with_image_size(built, (48, 56))  # 42 patches
    assert pruned_lengths(larger) == [29, 20]
    for ours, theirs in zip(scorers(larger), scorers(built), strict=True):
        for got, weight in zip(ours.weights, theirs.weights, strict=True):
            np.testing.assert_array_equal(got, weight)
    images = RNG.uniform(0, 255, (2, 48, 56, 3)).astype(np.float32)
    assert np.isfinite(larger(images)).all()
    same = kvision.models.with_image_size(larger, IMAGE_SIZE)
    assert same(IMAGES).shape == (4, 3)


def test_before_the_first_block() -> None:
    outputs = model(prune_at=(0,), features=True)(IMAGES)
    assert outputs["block_0"].shape == (4, 15, 16)
    assert outputs["block_0_grid"].shape == (4, 4, 5, 16)


def margins(outputs: dict[str, Any]) -> np.ndarray:
    """How far the last patch that is kept is from the first that is not."""
    smallest = []
    for name in ("1", "2"):
        logits = -np.sort(-np.asarray(outputs[f"keep_logits_{name}"]))
        count = outputs[f"kept_{name}"].shape[1]
        smallest.append(logits[:, count - 1] - logits[:, count])
    return np.min(smallest, axis=0)


def wide_margins() -> keras.Model:
    """Judge by differences that are larger than roundings."""
    built = model(features=True)
    for scorer in scorers(built):
        kernel = scorer.out_dense3.kernel
        kernel.assign(1000 * kernel)
    return built


def test_every_form_keeps_the_same() -> None:
    images = RNG.integers(0, 256, (16, *IMAGE_SIZE, 3)).astype(np.uint8)
    built = wide_margins()
    expected = {name: np.asarray(v) for name, v in built(images).items()}
    clear = margins(expected) > 1e-3
    assert clear.sum() >= 12
    xla = tf.function(lambda x: built(x, training=False), jit_compile=True)(images)
    entry = tf.TensorSpec((1, *IMAGE_SIZE, 3), tf.uint8, name="images")
    content = convert_function(lambda x: dict(built(x, training=False)), entry)
    check_builtin(content)
    (graph,) = parse(content).subgraphs
    ranks = [len(t.shape) for t in graph.tensors if t.shape is not None]
    assert max(ranks) <= 4
    kinds = {operator.kind for operator in operators(content)}
    assert {"TOPK_V2", "GATHER"} <= kinds
    for outputs in (xla, runner(content)(images)):
        for name, value in expected.items():
            got = np.asarray(outputs[name])[clear]
            if "kept" in name:
                # The order among those that are kept may turn where they are equal.
                got, value = np.sort(got), np.sort(value[clear])
                np.testing.assert_array_equal(got, value, err_msg=name)
            elif name.endswith("grid"):
                limit = 1e-4 * np.abs(value).max()
                np.testing.assert_allclose(got, value[clear], rtol=0, atol=limit)


def informative_patches(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise, and one patch whose colour is the class: images, classes, cells."""
    rng = np.random.default_rng(0)
    images = rng.normal(127, 20, (number, 4, 8, 4, 8, 3))
    labels = rng.integers(0, 3, number)
    cells = rng.integers(0, 16, number)
    colours = np.eye(3)[labels] * 120 + 60
    images[np.arange(number), cells // 4, :, cells % 4] = colours[:, None, None]
    images = images.reshape(number, 32, 32, 3).clip(0, 255)
    return images.astype(np.float32), labels, cells


def test_learns_to_keep_what_matters() -> None:
    keras.utils.set_random_seed(0)
    images, labels, cells = informative_patches(1280)
    settings = {"image_size": (32, 32), "keep_ratio": 0.5, "prune_at": (1,)}
    built = model(**settings)
    built.compile(
        keras.optimizers.Adam(3e-3), LOSS, metrics=["accuracy"], jit_compile=False
    )
    built.fit(images[:1024], labels[:1024], batch_size=64, epochs=12, verbose=0)
    _, accuracy = built.evaluate(images[1024:], labels[1024:], verbose=0)
    features = model(**settings, features=True)
    for layer in features.layers:
        if layer.weights:
            layer.set_weights(built.get_layer(layer.name).get_weights())
    outputs = features.predict(images[1024:], verbose=0)
    is_kept = (outputs["kept_1"] == cells[1024:, None]).any(axis=1)
    shares = 1 / (1 + np.exp(-outputs["keep_logits_1"]))
    assert accuracy > 0.95
    assert is_kept.mean() > 0.95  # by chance 0.5
    assert shares.mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("prune_at", [(2, 1), (1, 1), (3,), (-1,)])
def test_blocks_that_cannot_be(prune_at: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"ascending, in 0\.\.2"):
        model(prune_at=prune_at)


def test_ratio_out_of_range() -> None:
    with pytest.raises(ValueError, match="keep_ratio must be in"):
        model(keep_ratio=0)
