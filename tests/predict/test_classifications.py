"""Images in, classes out, against the model on images that Pillow resized."""

import logging
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import kvision as kv
from kvision import layers
from kvision.predict import classify

NAMES = ["red", "green", "blue", "grey"]


def classifier(
    image_size=(24, 32), channels=3, class_names=NAMES, **rule
) -> keras.Model:
    """A linear function of the mean colours of the halves of an image."""
    images = keras.Input((*image_size, channels), name="images")
    preprocessing = layers.ImagePreprocessing(127.5, 64.0, name="preprocessing", **rule)
    hidden = keras.layers.AveragePooling2D((image_size[0], image_size[1] // 2))(
        preprocessing(images)
    )
    head = layers.ClassificationHead(
        4, class_names, kernel_initializer="glorot_uniform", name="head"
    )
    logits = head(keras.layers.Flatten()(hidden))
    model = keras.Model(images, logits, name="colours")
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 2, w.shape) for w in model.get_weights()])
    return model


def photo(height=50, width=80, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (-(-height // 10), -(-width // 10), 3), np.uint8)
    return blocks.repeat(10, 0).repeat(10, 1)[:height, :width]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return classifier(crop_fraction=0.8)


def middle(image: np.ndarray) -> np.ndarray:
    """What "crop" with 0.8 means for an input of 24 x 32: 30 x 40, cut to 24 x 32."""
    picture = Image.fromarray(image)
    scale = max(30 / picture.height, 40 / picture.width)
    size = int(picture.width * scale + 1e-9), int(picture.height * scale + 1e-9)
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - 32) / 2), round((size[1] - 24) / 2)
    return np.asarray(picture)[top : top + 24, left : left + 32]


@pytest.mark.parametrize("size", [(50, 80), (24, 32), (200, 40), (31, 33), (7, 90)])
def test_equal_to_the_model_on_what_pillow_makes(model, size) -> None:
    image = photo(*size)
    (found,) = kv.classify(model, image)
    logits = np.asarray(model(middle(image)[None]))[0].astype(np.float64)
    np.testing.assert_allclose(found.logits, logits, atol=1e-5)
    scores = np.exp(logits - logits.max())
    np.testing.assert_allclose(found.scores, scores / scores.sum(), atol=1e-6)
    assert found.scores.dtype == np.float32
    assert found.labels.tolist() == np.argsort(-logits).tolist()
    assert found.image_size == size


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_stretch_and_interpolation_are_the_models(interpolation) -> None:
    model = classifier(resize="stretch", interpolation=interpolation)
    image = photo(50, 40)
    (found,) = classify(model, image)
    method = Image.Resampling[interpolation.upper()]
    resized = np.asarray(Image.fromarray(image).resize((32, 24), method))
    expected = np.asarray(model(resized[None]))[0]
    np.testing.assert_allclose(found.logits, expected, atol=1e-5)


def test_top_names_and_scores(model) -> None:
    (found,) = classify(model, photo(), top=2)
    assert len(found.top) == len(found.names) == len(found.labels) == 2
    assert found.scores.shape == (4,)
    assert found.names == [NAMES[label] for label in found.labels]
    for (name, score), label in zip(found.top, found.labels, strict=True):
        assert name == NAMES[label]
        assert score == found.scores[label]
    assert found.top[0][1] == found.scores.max()
    assert found.names[0] in repr(found)
    (every,) = classify(model, photo(), top=9)
    assert len(every.top) == 4


def test_equal_scores_come_in_the_order_of_classes() -> None:
    model = classifier(class_names=None)
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    (found,) = classify(model, photo())
    assert found.names == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(found.scores, np.full(4, 0.25))


def test_sources_of_every_kind(model, tmp_path) -> None:
    images = [photo(50, 80, seed) for seed in range(3)]
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"photo {number}.png")
    expected = [f.logits for f in classify(model, np.stack(images))]
    for source in (
        tmp_path,
        str(tmp_path / "*.png"),
        [tmp_path / f"photo {n}.png" for n in range(3)],
        (Image.fromarray(image) for image in images),
        [images[0].astype(np.float32), images[1].astype(int), images[2]],
        [np.dstack([image, image[..., :1]]) for image in images],
    ):
        found = classify(model, source, batch_size=2)
        np.testing.assert_allclose([f.logits for f in found], expected, atol=1e-5)
    paths = [found.path for found in classify(model, tmp_path)]
    assert paths == sorted(tmp_path.iterdir())
    assert classify(model, images[0])[0].path is None


def test_grey_photos_and_grey_models(model) -> None:
    grey = photo()[..., 0]
    (one,) = classify(model, grey)
    (three,) = classify(model, np.repeat(grey[..., None], 3, 2))
    np.testing.assert_array_equal(one.logits, three.logits)
    (found,) = classify(classifier(channels=1), photo())
    assert found.scores.sum() == pytest.approx(1)


def test_orientation_is_applied(model, tmp_path) -> None:
    settings = Image.Exif()
    settings[0x0112] = 6
    Image.fromarray(photo()).save(tmp_path / "a.png", exif=settings)
    (found,) = classify(model, tmp_path / "a.png")
    (expected,) = classify(model, np.rot90(photo(), -1))
    assert found.image_size == (80, 50)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)


def test_streams_load_as_they_go(model) -> None:
    loaded = []

    def images():
        for seed in range(6):
            loaded.append(seed)
            yield photo(seed=seed)

    results = classify(model, images(), stream=True, batch_size=2)
    assert not loaded
    next(results)
    assert len(loaded) <= 3
    assert len(list(results)) == 5


def test_broken_files_are_named_or_skipped(model, tmp_path, caplog) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no photo")
    with pytest.raises(ValueError, match=r"b\.png"):
        classify(model, tmp_path)
    with caplog.at_level(logging.WARNING, "kvision.predict"):
        assert len(classify(model, tmp_path, on_error="skip")) == 1
    assert "Skipped 1 of 2 images" in caplog.text


def test_picture_with_the_best_classes(model, tmp_path) -> None:
    (found,) = classify(model, photo(50, 80), top=3)
    picture = found.plot(tmp_path / "out" / "a.png")
    with Image.open(tmp_path / "out" / "a.png") as written:
        assert written.size == picture.size
    pixels = np.asarray(picture)
    # The photo, enlarged, on the left; bars of the colours of the classes beside it.
    zoom = picture.height // 50
    assert zoom >= 6
    inner = pixels[5 * zoom, 5 * zoom]
    np.testing.assert_allclose(inner, photo(50, 80)[5, 5], atol=2)
    from kvision.viz.detections import class_color

    panel = pixels[:, 80 * zoom :].reshape(-1, 3)
    lengths = [
        np.all(panel == class_color(label), axis=1).sum() for label in found.labels
    ]
    shares = np.array(lengths) / sum(lengths)
    scores = found.scores[found.labels]
    np.testing.assert_allclose(shares, scores / scores.sum(), atol=0.02)
    assert found.to_dict()["top"][0]["name"] == found.names[0]


def test_what_is_no_classifier(model) -> None:
    images = keras.Input((8, 8, 3))
    plain = keras.Model(images, keras.layers.Flatten()(images))
    with pytest.raises(ValueError, match="without head and preprocessing"):
        classify(plain, photo())
    open_size = classifier_of_any_size()
    with pytest.raises(ValueError, match="of one size"):
        classify(open_size, photo())
    tokens = keras.Model(model.input, {"tokens": model.output})
    with pytest.raises(ValueError, match="features=True"):
        classify(tokens, photo())
    with pytest.raises(ValueError, match="top must be 1 or more"):
        classify(model, photo(), top=0)
    with pytest.raises(ValueError, match="batch_size must be 1"):
        classify(model, photo(), batch_size=0)


def classifier_of_any_size() -> keras.Model:
    images = keras.Input((None, None, 3))
    hidden = layers.ImagePreprocessing(name="preprocessing")(images)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(images, layers.ClassificationHead(2, name="head")(hidden))


def test_logits_that_are_no_numbers(tmp_path) -> None:
    model = classifier()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    Image.fromarray(photo()).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png are not finite"):
        classify(model, tmp_path / "a.png")


def test_no_matplotlib_is_needed(model, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    classify(model, photo())[0].draw()
