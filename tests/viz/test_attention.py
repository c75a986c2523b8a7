"""Attention maps and rollout against what the models' own layers compute."""

import keras
import numpy as np
import pytest
from keras import ops

import kvision as kv
from kvision import viz
from kvision.models.twins import TwinsSize, build_twins
from kvision.models.vit import ViTSize, build_vit
from kvision.ops import rollout

SIZE = (32, 48)
GRID = (4, 6)


def images(size=SIZE):
    return np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype("uint8")


def small_vit(**arguments):
    stem = kv.layers.PatchEmbedding(32, 8, name="patch_embedding")
    settings = {"num_classes": 3, "image_size": SIZE} | arguments
    model = build_vit(ViTSize(32, 3, 2, 64), stem, **settings)
    # Larger weights than those training begins with: attention that is not even.
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        if weight.path.endswith("qkv/kernel"):
            weight.assign(rng.normal(size=weight.shape, scale=0.4))
    return model


def attention_by_hand(model, block, x):
    """Follow the tokens through the model layer by layer, in NumPy from there."""
    layer = model.get_layer(block)
    tokens = ops.convert_to_numpy(keras.Model(model.input, layer.input)(x))
    mean, var = tokens.mean(-1, keepdims=True), tokens.var(-1, keepdims=True)
    gamma, beta = (w.numpy() for w in layer.norm1.weights)
    normed = (tokens - mean) / np.sqrt(var + layer.norm1.epsilon) * gamma + beta
    kernel, bias = (w.numpy() for w in layer.attention.qkv.weights)
    queries, keys, _ = np.split(normed @ kernel + bias, 3, axis=-1)
    scores = []
    for head in range(2):
        part = slice(head * 16, head * 16 + 16)
        logits = queries[..., part] @ keys[..., part].transpose(0, 2, 1) / 4
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        scores.append(powers / powers.sum(-1, keepdims=True))
    return np.stack(scores, axis=1)


def test_maps_equal_attention_by_hand():
    model, x = small_vit(), images()
    last, first = viz.attention_maps(model, x, blocks=[-1, "block_0"])
    assert (last.name, first.name) == ("block_2", "block_0")
    for found in (last, first):
        expected = attention_by_hand(model, found.name, x)
        np.testing.assert_allclose(found.scores, expected, atol=2e-6)
        class_row = expected[:, 1, 0, 1:].reshape(2, *GRID)
        np.testing.assert_allclose(found.grid(head=1), class_row, atol=2e-6)
        patch = expected[:, :, 1 + 2 * 6 + 3, 1:].mean(1).reshape(2, *GRID)
        np.testing.assert_allclose(found.grid(query=(2, 3)), patch, atol=2e-6)
    assert np.std(last.grid()) > 1e-3


def test_looking_leaves_the_model_as_it_was():
    model, x = small_vit(), images()
    before = model(x)
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    viz.attention_maps(model, x)
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    np.testing.assert_array_equal(model(x), before)


@pytest.mark.parametrize(
    ("arguments", "prefix"),
    [
        ({"distillation_token": True, "num_register_tokens": 3}, 5),
        ({"positions": "relative"}, 1),
        ({"class_token": False, "pooling": "average"}, 0),
        ({"dtype": "mixed_bfloat16", "qk_norm": True}, 1),
    ],
)
def test_any_prefix_size_and_precision(arguments, prefix):
    model = kv.models.with_image_size(small_vit(**arguments), (40, 21))
    x = images((40, 21))
    (found,) = viz.attention_maps(model, x, blocks=1)
    assert found.scores.dtype == np.float32
    assert found.scores.shape == (2, 2, prefix + 15, prefix + 15)
    np.testing.assert_allclose(found.scores.sum(-1), 1, atol=0.02)
    row = found.scores[:, :, 0] if prefix else found.scores.mean(2)
    expected = row[:, 0, prefix:].reshape(2, 5, 3)
    np.testing.assert_allclose(found.grid(head=0), expected, atol=1e-6)
    shares = viz.attention_rollout(model, x)
    assert shares.shape == (2, 5, 3)
    whole = rollout.attention_rollout([m.scores for m in viz.attention_maps(model, x)])
    row = whole[:, 0] if prefix else ops.mean(whole, axis=1)
    np.testing.assert_allclose(shares.reshape(2, -1), row[:, prefix:], atol=1e-6)


def test_a_bias_of_positions_takes_part():
    model, x = small_vit(positions="relative"), images()
    before = viz.attention_maps(model, x, blocks=0)[0].scores
    table = model.get_layer("position_bias_0").table
    table.assign(np.random.default_rng(2).normal(size=table.shape))
    after = viz.attention_maps(model, x, blocks=0)[0].scores
    assert np.abs(before - after).max() > 0.05


def test_pruned_tokens_return_to_their_places():
    model = kv.models.dynamic_vit("Ti/16", num_classes=3, image_size=(64, 96))
    x = images((64, 96))
    kept = list(viz.kept_tokens(model, x).values())
    assert [grid.sum() for grid in kept] == [32, 22, 16]
    maps = viz.attention_maps(model, x, blocks=[0, 4, 11])
    assert not np.isnan(maps[0].grid()).any()
    for found, stage in zip(maps[1:], (kept[0], kept[2]), strict=True):
        np.testing.assert_array_equal(~np.isnan(found.grid()), stage)
    indices = ops.convert_to_numpy(
        keras.Model(model.input, model.get_layer("token_pruning_9").output[2])(x)
    )
    found = maps[2]
    for image in range(2):
        for token, cell in enumerate(indices[image]):
            np.testing.assert_allclose(
                found.grid(head=1)[image].flat[cell],
                found.scores[image, 1, 0, 1 + token],
            )


def test_rollout_through_prunings():
    """Against matrices of all tokens, where those that are gone stay out."""
    model = kv.models.dynamic_vit("Ti/16", num_classes=3, image_size=(64, 96))
    x = images((64, 96))
    order = np.tile(np.arange(24), (2, 1))
    rolled = np.tile(np.eye(25), (2, 1, 1))
    for number, found in enumerate(viz.attention_maps(model, x)):
        if number in (3, 6, 9):
            layer = model.get_layer(f"token_pruning_{number}")
            new = ops.convert_to_numpy(keras.Model(model.input, layer.output[2])(x))
            for image in range(1):
                rows = [0] + [1 + list(order[image]).index(c) for c in new[image]]
                kept = rolled[image][rows]
            order = new
            rolled = kept[None]
        mean = found.scores[0].mean(0)
        rolled = (0.5 * (np.eye(len(mean)) + mean) @ rolled[0])[None]
    shares = viz.attention_rollout(model, x)
    np.testing.assert_allclose(shares[0].ravel(), rolled[0, 0, 1:], atol=1e-5)


def test_patches_of_two_sizes():
    model = kv.models.mixed_resolution_vit("Ti/16", num_classes=3, image_size=(64, 96))
    x = images((64, 96))
    fine = viz.fine_patches(model, x)
    assert fine.shape == (2, 4, 6)
    (found,) = viz.attention_maps(model, x, blocks=0)
    grid = found.grid()
    assert grid.shape == (2, 8, 12)
    squares = grid.reshape(2, 4, 2, 6, 2).transpose(0, 1, 3, 2, 4).reshape(2, 4, 6, 4)
    np.testing.assert_array_equal(np.ptp(squares, axis=-1) > 0, fine)
    tokens = np.where(fine, squares.sum(-1), squares[..., 0]).sum((1, 2))
    np.testing.assert_allclose(tokens, found.scores[:, :, 0, 1:].sum(-1).mean(1))
    whole = rollout.attention_rollout([m.scores for m in viz.attention_maps(model, x)])
    np.testing.assert_allclose(
        viz.attention_rollout(model, x).sum((1, 2)), ops.sum(whole[:, 0, 1:], 1)
    )


def twins(image_size=(72, 100)):
    size = TwinsSize((16, 32, 32, 32), (2, 2, 1, 1), (2, 2, 2, 2), window_size=3)
    return build_twins(size, num_classes=3, image_size=image_size)


def test_windows_and_summaries_of_twins():
    model, x = twins(), images((72, 100))
    window, summary = viz.attention_maps(model, x, blocks=[0, 1])
    seen = window.grid(query=(4, 24), head=0)
    assert seen.shape == (2, 18, 25)
    # The last window of a row is one cell wide: 25 = 8 * 3 + 1.
    assert np.argwhere(~np.isnan(seen[0])).tolist() == [[3, 24], [4, 24], [5, 24]]
    np.testing.assert_allclose(np.nansum(seen, (1, 2)), 1, atol=1e-6)
    square = summary.grid(query=(0, 0))
    assert (square[:, :8, :8] == square[:, :1, :1]).all()
    keys = summary.scores[:, :, 0].mean(1).reshape(2, 3, 4)
    np.testing.assert_allclose(square[:, ::8, ::8], keys, atol=1e-7)


def test_rollout_of_twins_hands_all_shares_on():
    shares = viz.attention_rollout(twins(), images((72, 100)))
    assert shares.shape == (2, 18, 25)
    assert (shares > 0).all()
    np.testing.assert_allclose(shares.sum((1, 2)), 1, atol=1e-5)


def test_what_cannot_be_looked_into_is_said():
    x = images()
    model = small_vit()
    with pytest.raises(ValueError, match="3 blocks, 'block_0'"):
        viz.attention_maps(model, x, blocks=3)
    with pytest.raises(ValueError, match=r"\(B, 32, 48, 3\)"):
        viz.attention_maps(model, x[:, :16])
    with pytest.raises(ValueError, match="2 heads"):
        viz.attention_maps(model, x, 0)[0].grid(head=2)
    with pytest.raises(ValueError, match="4 x 6"):
        viz.attention_maps(model, x, 0)[0].grid(query=(4, 0))
    with pytest.raises(ValueError, match="no transformer blocks"):
        viz.attention_maps(
            keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.Flatten()]), x
        )
    with pytest.raises(ValueError, match="Functional"):
        viz.attention_maps(keras.Sequential(), x)
    with pytest.raises(ValueError, match="inside its layer"):
        viz.attention_maps(keras.Sequential([keras.Input((*SIZE, 3)), model]), x)
    with pytest.raises(ValueError, match="keeps all its tokens"):
        viz.kept_tokens(model, x)
    with pytest.raises(ValueError, match="have one size"):
        viz.fine_patches(model, x)
