"""Boxes of interest: from the pixels of photos to those of the model's input."""

import logging

import keras
import numpy as np
import pytest
from PIL import Image

import kvision as kv
from kvision.export.classifier import Classifier
from kvision.predict.classifications import prepare_photo
from kvision.predict.regions import input_regions
from tests.export.classifier import region_vit, small_vit

BOX = (30, 24, 90, 66)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return region_vit(num_regions=2)


def photo(height: int = 90, width: int = 120, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("size", [(90, 120), (180, 100), (70, 150)])
def test_a_box_is_where_its_pixels_go(resize: str, size: tuple[int, int]) -> None:
    classifier = Classifier(region_vit(resize=resize))
    image = np.zeros((*size, 3), np.uint8)
    x1, y1, x2, y2 = BOX
    image[y1:y2, x1:x2] = 255
    rows, columns = np.nonzero(prepare_photo(classifier, image).pixels[..., 0] > 127)
    seen = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    (found, *padding) = input_regions(classifier, [BOX], size)
    height, width = classifier.image_size
    np.testing.assert_allclose(np.clip(found, 0, [width, height] * 2), seen, atol=0.6)
    np.testing.assert_array_equal(padding, np.zeros((2, 4)))


def test_classify_looks_where_it_is_told(model: keras.Model) -> None:
    images = [photo(), photo(150, 70, 1), photo(seed=2)]
    boxes = [[BOX, (0, 0, 20, 20)], [], [(100, 60, 120, 90)]]
    found = kv.classify(model, images, regions=boxes, batch_size=2)
    classifier = Classifier(model)
    for image, regions, each in zip(images, boxes, found, strict=True):
        inputs = {
            "images": prepare_photo(classifier, image).pixels[None],
            "regions": input_regions(classifier, regions, image.shape[:2])[None],
        }
        np.testing.assert_allclose(each.logits, np.asarray(model(inputs))[0], atol=1e-5)
    plain = kv.classify(model, images)
    differences = [
        np.abs(a.logits - b.logits).max() for a, b in zip(found, plain, strict=True)
    ]
    assert differences[0] > 1e-3
    assert differences[1] < 1e-5
    assert differences[2] > 1e-3


def test_a_photo_that_is_skipped_keeps_the_others_regions(
    model: keras.Model, tmp_path
) -> None:
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for number, path in enumerate(paths):
        Image.fromarray(photo(seed=number)).save(path)
    paths[1].write_bytes(b"no image")
    boxes = [[], [(0, 0, 10, 10)], [BOX]]
    found = kv.classify(model, paths, regions=boxes, on_error="skip")
    (expected,) = kv.classify(model, paths[2], regions=[[BOX]])
    np.testing.assert_allclose(found[1].logits, expected.logits, atol=1e-5)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([[BOX] * 3], r"up to 2 regions an image.*Received: 3"),
        ([[(0, 0, 121, 90)]], r"within the photo of 120 x 90 .*121"),
        ([[(-1, 0, 20, 20)]], "within the photo"),
        ([[(20, 0, 20, 20)]], "x1 < x2"),
        ([[(0, 0, np.nan, 20)]], "within the photo"),
        ([BOX], r"boxes \(n, 4\).*shape \(4,\)"),
        ([], "regions has no entry for an image"),
        ([[BOX], [BOX]], "more entries than there are images"),
    ],
)
def test_regions_that_do_not_fit(model: keras.Model, regions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kv.classify(model, [photo()], regions=regions)


def test_models_without_regions_refuse_them() -> None:
    with pytest.raises(ValueError, match="small takes no regions"):
        kv.classify(small_vit(), [photo()], regions=[[BOX]])


def test_a_box_in_the_border_that_is_cut_off_is_logged(
    model: keras.Model, caplog
) -> None:
    with caplog.at_level(logging.WARNING, "kvision.predict"):
        kv.classify(
            model, [photo(90, 400)], regions=[[(0, 0, 9, 9), (200, 9, 220, 19)]]
        )
    assert "1 of 2 regions lie in the border" in caplog.text


def test_explain_knows_images_alone(model: keras.Model) -> None:
    with pytest.raises(ValueError, match="regional takes regions"):
        kv.explain(model, photo())
