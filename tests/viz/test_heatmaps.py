"""Heat maps: where numbers land on a photo, and what similarities are."""

import numpy as np
import pytest
from PIL import Image

import kvision as kv
from kvision import viz
from kvision.data.preparation import prepare_image


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("size", [(300, 200), (120, 310)])
def test_region_is_where_the_pixels_came_from(resize, size):
    """Against the places of pixels that carry their own coordinates."""
    y, x = np.mgrid[: size[0], : size[1]] / (max(size) - 1) * 255
    ramps = np.stack([x, y, np.full_like(x, 255)], -1).round().astype("uint8")
    seen = prepare_image(ramps, (64, 96), resize, 0.9, "bilinear")
    x1, y1, x2, y2 = viz.seen_region(size, (64, 96), resize, 0.9)
    scale = (max(size) - 1) / 255
    for row, column in [(10, 20), (32, 48), (50, 30)]:
        if not seen[row, column, 2]:  # filled up
            continue
        found = seen[row, column, :2] * scale + 0.5
        expected = (
            x1 + (column + 0.5) / 96 * (x2 - x1),
            y1 + (row + 0.5) / 64 * (y2 - y1),
        )
        np.testing.assert_allclose(found, expected, atol=2.5)


def test_heat_lies_over_its_region_only():
    photo = Image.new("RGB", (600, 600), (100, 100, 100))
    grid = np.array([[0.0, 1.0], [np.nan, 1.0]])
    drawn = np.asarray(viz.draw_heat(photo, grid, (200, 200, 400, 400)))
    assert drawn[100, 100].tolist() == drawn[350, 250].tolist() == [35, 35, 35]
    hot, cold = drawn[250, 350], drawn[250, 250]
    assert hot.astype(int).sum() > 300 > cold.astype(int).sum()
    assert (drawn[350, 350] == hot).all()


def test_similar_positions_of_waves():
    model = kv.models.vit(
        "Ti/16", num_classes=2, image_size=(64, 96), positions="sincos_2d"
    )
    found = viz.position_similarity(model)
    codes = kv.ops.positions.sincos_2d(4, 6, 192)
    length = np.linalg.norm(codes, axis=1)
    expected = codes @ codes.T / np.outer(length, length)
    np.testing.assert_allclose(found.reshape(24, 24), expected, atol=1e-5)
    assert viz.draw_similarity(found).width > 400


def test_similar_patches_are_cosines_of_tokens():
    model = kv.models.vit("Ti/16", num_classes=2, image_size=(32, 48))
    x = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3))
    found = viz.patch_similarity(model, x, block=3)
    import keras

    tokens = keras.Model(model.input, model.get_layer("block_3").output)(x)[0, 1:]
    a, b = np.asarray(tokens)[[1, 5]]
    cosine = a @ b / np.sqrt((a @ a) * (b @ b))
    assert found[0, 0, 1, 1, 2] == pytest.approx(cosine, abs=1e-5)


def test_positions_that_are_no_codes_are_refused():
    model = kv.models.vit(
        "Ti/16", num_classes=2, image_size=(32, 32), positions="relative"
    )
    with pytest.raises(ValueError, match="adds no codes"):
        viz.position_similarity(model)


def test_patches_and_kept_tokens_are_drawn():
    photo = np.full((600, 600, 3), 200, np.uint8)
    kept = np.array([[True, False], [False, True]])
    picture = viz.draw_kept(photo, {"first": kept})
    pixels = np.asarray(picture)
    assert (pixels == 36).all(-1).sum() == pytest.approx(600 * 600 / 2, rel=0.01)
    lines = np.asarray(viz.draw_patches(photo, kept))
    assert (lines[150, 140:160] == 255).any()
    assert (lines[150, 440:460] == 200).all()
