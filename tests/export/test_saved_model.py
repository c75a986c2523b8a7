"""SavedModels: signatures, what plain TensorFlow makes of them, and refusals."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kvision
from kvision.export import Parity, ParityError, saved_model
from kvision.export.detection import in_photo_pixels
from tests.export.classifier import small_vit
from tests.export.detector import CLASS_NAMES, small_detector, textured_images

SIGNATURES = ["serving_default", "serving_xla", "encoded_images"]


@pytest.fixture(scope="module")
def signatures(saved: Parity) -> Any:
    return tf.saved_model.load(str(saved.path)).signatures


def as_png(image: np.ndarray) -> bytes:
    return tf.io.encode_png(image).numpy()


def test_every_signature_was_compared(saved: Parity) -> None:
    assert [each.form for each in saved.differences] == SIGNATURES
    for each in saved.differences:
        assert each.num_detections >= 50
        assert each.num_unmatched == 0
        assert each.boxes.largest < 1e-3
        assert each.scores.largest < 1e-5
        assert each.masks.largest < 1e-3
    assert saved.is_conclusive
    assert saved.num_bytes > 100_000


def test_plain_tensorflow_runs_it(saved: Parity, images: np.ndarray) -> None:
    code = """
import sys
for name in ("kvision", "keras", "tf_keras"):
    sys.modules[name] = None  # importing it raises
import io
import numpy as np
import tensorflow as tf
path, = sys.argv[1:]
signatures = tf.saved_model.load(path).signatures
images = np.load(io.BytesIO(sys.stdin.buffer.read()))
for name in ("serving_default", "serving_xla"):
    found = signatures[name](images=tf.constant(images))
    print(name, int(tf.reduce_sum(found["num_detections"])))
"""
    file = io.BytesIO()
    np.save(file, images)
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved.path)],
        input=file.getvalue(),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert b"gradient" not in done.stderr
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert [name for name, _ in lines] == ["serving_default", "serving_xla"]
    assert all(int(number) >= 50 for _, number in lines)


@pytest.mark.parametrize("batch", [1, 3])
def test_any_batch(
    signatures: Any, detector: keras.Model, images: np.ndarray, batch: int
) -> None:
    expected = detector(images[:batch])
    found = signatures["serving_default"](images=tf.constant(images[:batch]))
    assert set(found) == set(expected)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-3)
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    assert found["masks"].shape == (batch, 20, 28, 28)


def test_assets_say_what_the_model_is(saved: Parity, detector: keras.Model) -> None:
    assets = saved.path / "assets"
    assert (assets / "labels.txt").read_text().split() == CLASS_NAMES
    description = json.loads((assets / "kvision.json").read_text())
    assert description["class_names"] == CLASS_NAMES
    assert description["image_size"] == [64, 96]
    assert description["resize"] == "pad"
    assert description["kvision_version"] == kvision.__version__
    assert description["score_threshold"] == 0.05


def test_files_of_any_size_in_their_own_pixels(
    signatures: Any, detector: keras.Model
) -> None:
    # Twice and half the input: boxes are those of the fitted image, scaled.
    large = textured_images(1, (32, 48))[0].repeat(4, 0).repeat(4, 1)
    found = signatures["encoded_images"](
        encoded_images=tf.constant([as_png(large), as_png(large[::4, ::4])])
    )
    np.testing.assert_array_equal(found["image_sizes"], [[128, 192], [32, 48]])
    pixels = tf.image.resize(large, (64, 96), antialias=True)
    expected = detector(tf.cast(tf.round(pixels), tf.uint8)[None])
    number = int(expected["num_detections"][0])
    assert number >= 10
    np.testing.assert_allclose(
        found["mask_boxes"][0, :number], expected["boxes"][0, :number] * 2, atol=0.01
    )
    assert float(tf.reduce_max(found["boxes"][1][:, 2])) <= 48


def test_photos_are_turned_upright(signatures: Any) -> None:
    image = Image.fromarray(textured_images(1)[0])
    upright, turned = io.BytesIO(), io.BytesIO()
    settings = Image.Exif()
    settings[0x0112] = 6  # to be turned clockwise by the reader
    # 4:4:4 and quality 100: the blocks of JPEG turn with the image.
    options = {"format": "JPEG", "quality": 100, "subsampling": 0}
    image.save(upright, **options)
    image.transpose(Image.Transpose.ROTATE_90).save(turned, exif=settings, **options)
    found = signatures["encoded_images"](
        encoded_images=tf.constant([upright.getvalue(), turned.getvalue()])
    )
    np.testing.assert_array_equal(found["image_sizes"], [[64, 96], [64, 96]])
    # JPEG's rounding may exchange boxes whose scores are close.
    boxes = found["boxes"].numpy()
    distances = np.abs(boxes[0, :3, None] - boxes[1]).max(axis=-1)
    assert distances.min(axis=1).max() < 2


def test_faults_of_a_request_are_errors(signatures: Any, images: np.ndarray) -> None:
    serve = signatures["serving_default"]
    with pytest.raises((tf.errors.InvalidArgumentError, TypeError, ValueError)):
        serve(images=tf.zeros((1, 32, 96, 3), tf.uint8))
    with pytest.raises((tf.errors.InvalidArgumentError, TypeError, ValueError)):
        serve(images=tf.zeros((1, 64, 96, 3), tf.float32))
    with pytest.raises(tf.errors.InvalidArgumentError):
        signatures["encoded_images"](encoded_images=tf.constant([b"garbage"]))
    broken = as_png(images[0])[:-200]
    with pytest.raises(tf.errors.InvalidArgumentError):
        signatures["encoded_images"](encoded_images=tf.constant([broken]))


@pytest.mark.parametrize("name", SIGNATURES)
def test_empty_batches(signatures: Any, name: str) -> None:
    nothing = {"images": tf.zeros((0, 64, 96, 3), tf.uint8)}
    if name == "encoded_images":
        nothing = {name: tf.constant([], tf.string)}
    with pytest.raises(tf.errors.InvalidArgumentError, match="the batch is empty"):
        signatures[name](**nothing)


def test_an_existing_version_is_kept(saved: Parity, detector: keras.Model) -> None:
    before = (saved.path / "saved_model.pb").read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        saved_model(detector, saved.path)
    assert (saved.path / "saved_model.pb").read_bytes() == before
    assert [path.name for path in saved.path.parent.iterdir()] == ["1"]


def test_difference_is_an_error_and_nothing_is_written(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_detector(masks=False)
    path = tmp_path / "shapes/1"
    module = sys.modules["kvision.export.detection"]

    def shifted(*arguments: Any) -> dict[str, Any]:
        outputs = in_photo_pixels(*arguments)
        return {**outputs, "boxes": outputs["boxes"] + 1}

    monkeypatch.setattr(module, "in_photo_pixels", shifted)
    with pytest.raises(
        ParityError, match=r"encoded_images: .* within 0\.5 px"
    ) as error:
        saved_model(model, path, images=images)
    assert not list(path.parent.iterdir())
    plain, xla, files = error.value.parity.differences
    assert not plain.problems
    assert not xla.problems
    assert files.num_matched == 0
    assert files.masks is None


def test_without_images_some_are_drawn_of_channels_that_no_file_has(
    tmp_path: Path,
) -> None:
    model = small_detector(masks=False, num_channels=2, resize="stretch")
    parity = saved_model(model, tmp_path / "1")
    assert not parity.problems
    assert [each.form for each in parity.differences] == SIGNATURES[:2]
    assert parity.differences[0].num_images == 8
    signatures = tf.saved_model.load(str(parity.path)).signatures
    assert sorted(signatures) == SIGNATURES[:2]


def test_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"detector of kvision\.models.*Sequential"):
        saved_model(keras.Sequential(), tmp_path / "1")


def test_detections_in_the_padding_are_left_out() -> None:
    # The photo (40, 30) was halved to 20 x 15 pixels of the input.
    boxes = [[2, 2, 8, 8], [16, 2, 19, 8], [10, 15, 20, 25], [0, 0, 0, 0]]
    outputs = {
        "boxes": tf.constant([boxes], tf.float32),
        "scores": tf.constant([[0.9, 0.8, 0.7, 0.0]]),
        "labels": tf.constant([[1, 0, 2, -1]]),
        "num_detections": tf.constant([3]),
        "masks": tf.reshape(tf.range(1.0, 17.0), (1, 4, 2, 2)),
    }
    found = in_photo_pixels(outputs, tf.constant([[0.5, 0.5]]), tf.constant([[40, 30]]))
    np.testing.assert_array_equal(found["num_detections"], [2])
    np.testing.assert_array_equal(
        found["boxes"][0], [[4, 4, 16, 16], [20, 30, 30, 40], [0] * 4, [0] * 4]
    )
    np.testing.assert_array_equal(found["mask_boxes"][0, 1], [20, 30, 40, 50])
    np.testing.assert_array_equal(found["labels"][0], [1, 2, -1, -1])
    np.testing.assert_allclose(found["scores"][0], [0.9, 0.7, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(found["masks"][0, :, 0, 0], [1, 9, 0, 0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_fast_form(precision: str, images: np.ndarray, tmp_path: Path) -> None:
    """One argument away: fused kernels, weights of half the size, any batch."""
    model = small_detector()
    parity = saved_model(model, tmp_path / "1", precision=precision, images=images)
    forms = {each.form: each for each in parity.differences}
    assert list(forms) == ["serving_default", "encoded_images"]
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    run = loaded.signatures["serving_default"]
    found = run(images=tf.constant(images[:2]))
    assert found["boxes"].shape[0] == 2
    found = {name: value.numpy() for name, value in found.items()}
    expected = model.predict_on_batch(images[:2])
    if precision == "float32":
        assert all(each.num_unmatched == 0 for each in forms.values())
        np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)
    else:
        plain = saved_model(model, tmp_path / "2", images=images)
        assert parity.num_bytes < 0.75 * plain.num_bytes
        assert forms["serving_default"].num_matched > 0.5 * len(images)
    with pytest.raises(tf.errors.InvalidArgumentError, match="batch is empty"):
        run(images=tf.constant(images[:0]))


def test_fast_classifier_in_bfloat16(tmp_path: Path) -> None:
    model = small_vit()
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (60, 32, 32, 3)).astype(np.uint8)
    saved_model(model, tmp_path / "1", precision="bfloat16", images=photos)
    run = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    expected = np.asarray(model.predict_on_batch(photos))
    found = run(images=tf.constant(photos))["logits"].numpy()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    assert np.abs(found - expected).max() > 0


def test_unknown_precision(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16"):
        saved_model(small_vit(), tmp_path / "1", precision="float16")
