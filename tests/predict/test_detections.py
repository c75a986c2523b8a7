"""Images in, detections in original pixels out, with a model that knows its answer."""

import logging
import sys

import numpy as np
import pytest
from PIL import Image

import kvision as kv
from kvision.evaluation.masks import decode, paste
from kvision.predict import Detections, detect, frames, from_outputs, from_targets


class Model:
    """Finds a bright rectangle: its box in pixels of the input, and a full mask."""

    class_names = ("cat", "dog")
    resize = "pad"

    def __init__(self, image_size=(32, 48), num_channels=3, masks=True):
        self.image_size = image_size
        self.num_channels = num_channels
        self.masks = masks
        self.batches = []

    def predict_on_batch(self, images):
        assert images.shape[1:] == (*self.image_size, self.num_channels)
        self.batches.append(images)
        count = len(images)
        outputs = {
            "boxes": np.zeros((count, 3, 4), np.float32),
            "scores": np.tile(np.float32([0.9, 0.3, 0]), (count, 1)),
            "labels": np.tile(np.int32([1, 0, -1]), (count, 1)),
            "num_detections": np.full(count, 2, np.int32),
        }
        for row, image in enumerate(images):
            y, x = np.nonzero(image[..., 0] > 120)
            if len(y):
                box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
                outputs["boxes"][row, :2] = box
        if self.masks:
            outputs["masks"] = np.ones((count, 3, 28, 28), np.float32)
        return outputs


def photo(height=64, width=96, box=(20, 10, 60, 40)):
    """Black but for a bright rectangle with corners at multiples of 2."""
    image = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 240
    return image


@pytest.fixture
def folder(tmp_path):
    for number, box in enumerate([(20, 10, 60, 40), (0, 0, 30, 30)]):
        Image.fromarray(photo(box=box)).save(tmp_path / f"photo {number}.png")
    (tmp_path / "notes.txt").write_text("not a photo")
    return tmp_path


def test_boxes_and_masks_come_back_in_original_pixels():
    (found,) = detect(Model(), photo())
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes, [[20, 10, 60, 40]])
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.names == ["dog"]
    assert found.image_size == (64, 96)
    expected = np.zeros((1, 64, 96), bool)
    expected[0, 10:40, 20:60] = True
    np.testing.assert_array_equal(found.masks, expected)
    np.testing.assert_array_equal(decode(found.rles()[0]), expected[0])


@pytest.mark.parametrize("size", [(64, 96), (200, 60), (10, 300), (33, 47), (16, 24)])
@pytest.mark.parametrize("resize", ["pad", "stretch"])
def test_any_size_is_brought_to_the_input_and_back(size, resize):
    height, width = size
    box = np.array([0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height]).astype(
        int
    )
    model = Model((64, 64))
    model.resize = resize
    (found,) = detect(model, photo(height, width, box))
    # An edge is found to a pixel of the input.
    pixel = (
        max(height, width) / 64
        if resize == "pad"
        else np.array([width, height] * 2) / 64
    )
    assert (np.abs(found.boxes[0] - box) <= np.maximum(pixel, 1)).all()


@pytest.mark.parametrize("size", [(64, 96), (45, 31), (20, 30), (32, 48)])
def test_resampling_is_that_of_tensorflow(size):
    import tensorflow as tf

    image = np.random.default_rng(0).uniform(2, 255, (*size, 3)).astype(np.float32)
    model = Model()
    detect(model, image)
    scale = min(32 / size[0], 48 / size[1])
    new = [int(np.floor(side * scale + 0.5)) for side in size]
    expected = tf.image.resize(image, new, antialias=True).numpy()
    (given,) = model.batches[0]
    np.testing.assert_allclose(given[: new[0], : new[1]], expected, atol=1e-3)
    assert not given[new[0] :].any()
    assert not given[:, new[1] :].any()


def test_training_and_prediction_see_the_same_pixels():
    from kvision.data.images import resize_image

    image = np.random.default_rng(0).integers(0, 256, (51, 90, 3)).astype(np.uint8)
    model = Model()
    detect(model, image)
    assert model.batches[0].dtype == np.uint8
    np.testing.assert_array_equal(model.batches[0][0], resize_image(image, (32, 48)))


def test_paths_folders_globs_arrays_and_pillow_images(folder):
    file = folder / "photo 0.png"
    image = photo()
    expected = [[20, 10, 60, 40]]
    for given in (
        file,
        str(file),
        [file],
        image,
        [image],
        Image.open(file),
        image[None],
    ):
        (found,) = detect(Model(), given)
        np.testing.assert_allclose(found.boxes, expected)
    for given in (folder, str(folder / "*.png"), sorted(folder.glob("*.png"))):
        first, second = detect(Model(), given)
        assert first.path == file
        np.testing.assert_allclose(first.boxes, expected)
        np.testing.assert_allclose(second.boxes, [[0, 0, 30, 30]])
    assert len(detect(Model(), [file, image, Image.open(file), folder])) == 5
    assert len(detect(Model(), (image for _ in range(3)))) == 3
    assert detect(Model(), []) == []


def test_a_name_with_brackets_is_a_file_first(folder):
    Image.fromarray(photo()).save(folder / "a[1].png")
    (found,) = detect(Model(), str(folder / "a[1].png"))
    assert len(found) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_alike_to_files_and_images(tmp_path, orientation):
    stored = Image.fromarray(photo(box=(4, 2, 40, 20)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    (file,) = detect(Model(), tmp_path / "a.jpg")
    (image,) = detect(Model(), Image.open(tmp_path / "a.jpg"))
    np.testing.assert_array_equal(file.boxes, image.boxes)
    assert file.image_size == image.image_size
    assert file.image_size == ((64, 96) if orientation < 5 else (96, 64))
    bright = np.argwhere(file.image[..., 0] > 120)
    y1, x1 = bright.min(axis=0)
    np.testing.assert_allclose(file.boxes[0, :2], [x1, y1], atol=3.1)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16", "LA"])
def test_every_kind_of_pixels_means_the_same_in_files_and_images(tmp_path, mode):
    image = Image.fromarray(photo())
    if mode == "I;16":
        image = Image.fromarray(photo()[..., 0].astype(np.uint16) * 256)
    else:
        image = image.convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
    image.save(path)
    (file,) = detect(Model(), path)
    (given,) = detect(Model(), image)
    np.testing.assert_allclose(file.boxes, [[20, 10, 60, 40]])
    np.testing.assert_array_equal(file.image, given.image)


def test_arrays_of_every_dtype_and_number_of_channels():
    image = photo()
    alike = [
        image[..., 0],
        image[..., :1],
        np.concatenate([image, image[..., :1]], axis=2),
        image.astype(np.float32),
        image.astype(np.float64),
        image.astype(np.int64),
        image.astype(np.uint16) * 256,
    ]
    for found in detect(Model(), alike):
        np.testing.assert_allclose(found.boxes, [[20, 10, 60, 40]])
        np.testing.assert_array_equal(found.image, image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((4, 4, 3)) + 0.5,
            r"Received: 0.5 to 0.5, which looks scaled to 0..1",
        ),
        (np.full((4, 4, 3), 256), "values in 0..255. Received: 256.0 to 256.0"),
        (np.full((4, 4, 3), -1.0), "values in 0..255. Received: -1.0"),
        (np.full((4, 4, 3), np.nan), "values in 0..255. Received: nan"),
        (np.zeros((4, 4, 2), np.uint8), "images of 3 channels. Received: 2"),
        (np.zeros((4, 0, 3), np.uint8), r"shape \(4, 0, 3\)"),
        (np.zeros((1, 1, 4, 4, 3), np.uint8), r"shape \(1, 1, 4, 4, 3\)"),
        (np.zeros((4, 4, 3), bool), "dtype bool"),
        (17, "Expected paths, arrays, .* Received: int"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        detect(Model(), image)


def test_other_numbers_of_channels():
    image = np.zeros((64, 96, 5), np.uint8)
    image[10:40, 20:60] = 200
    (found,) = detect(Model(num_channels=5), image)
    np.testing.assert_allclose(found.boxes, [[20, 10, 60, 40]])
    assert found.draw().mode == "RGB"
    (grey,) = detect(Model(num_channels=1), photo())
    np.testing.assert_allclose(grey.boxes, [[20, 10, 60, 40]])


def test_scores_below_the_threshold_are_left_out():
    assert len(detect(Model(), photo(), score_threshold=0.3)[0]) == 2
    assert len(detect(Model(), photo(), score_threshold=0.95)[0]) == 0


def test_batches_have_one_shape():
    model = Model()
    assert len(detect(model, [photo()] * 5, batch_size=2)) == 5
    assert [len(batch) for batch in model.batches] == [2, 2, 2]
    model = Model()
    detect(model, [photo()] * 3, batch_size=8)
    assert [len(batch) for batch in model.batches] == [3]


def test_streams_load_as_they_go():
    taken = []

    def photos():
        for number in range(100):
            taken.append(number)
            yield photo()

    stream = detect(Model(), photos(), stream=True, batch_size=2)
    assert taken == []
    next(stream)
    assert len(taken) <= 3


def test_a_file_that_is_no_image_is_named(folder, caplog):
    bad = folder / "photo 00 broken.png"
    bad.write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match=r"photo 00 broken\.png"):
        detect(Model(), folder)
    with caplog.at_level(logging.WARNING, "kvision"):
        found = detect(Model(), folder, on_error="skip")
    assert [each.path.name for each in found] == ["photo 0.png", "photo 1.png"]
    assert "Skipped 1 of 3 images" in caplog.text
    assert "photo 00 broken.png" in caplog.text


def test_missing_files_and_empty_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.jpg"):
        detect(Model(), tmp_path / "nothing.jpg")
    with pytest.raises(ValueError, match=r"No image in .*looked for \.bmp"):
        detect(Model(), tmp_path)
    with pytest.raises(ValueError, match=r"No image in .*\*\.jpg"):
        detect(Model(), str(tmp_path / "*.jpg"), on_error="skip")


def test_wrong_arguments_are_refused_before_anything_is_loaded():
    with pytest.raises(ValueError, match="Received a int without class_names"):
        detect(3, photo())
    with pytest.raises(ValueError, match="on_error must be"):
        detect(Model(), photo(), on_error="ignore", stream=True)
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        detect(Model(), photo(), batch_size=0)


def test_detections_wholly_in_the_padding_are_left_out():
    outputs = Model().predict_on_batch(np.zeros((1, 32, 48, 3), np.uint8))
    outputs["boxes"][0, 0] = [40, 2, 48, 9]
    outputs["boxes"][0, 1] = [30, 2, 48, 9]
    found = from_outputs(outputs, 0, ["cat", "dog"], (64, 64), (0.5, 0.5))
    np.testing.assert_allclose(found.boxes, [[60, 4, 64, 18]])
    assert found.names == ["cat"]
    # The mask keeps the place it had before the box was cut.
    whole = np.array([[60, 4, 96, 18]])
    np.testing.assert_array_equal(
        found.masks, paste(np.ones((1, 28, 28)), whole, (64, 64))
    )


def detections(count=3):
    boxes = np.array([[2, 3, 12, 13], [10, 10, 30, 24], [0, 0, 5, 6]], np.float32)
    return Detections(
        boxes[:count],
        np.float32([0.9, 0.8, 0.7])[:count],
        np.int32([1, 0, 1])[:count],
        ["cat", "dog"],
        (40, 60),
        np.ones((count, 28, 28), np.float32),
        source=photo(40, 60),
    )


def test_selecting():
    found = detections()
    assert found[1].names == ["cat"]
    assert found[-1].boxes.tolist() == [[0, 0, 5, 6]]
    assert found[:2].names == ["dog", "cat"]
    assert found[found.scores > 0.75].names == ["dog", "cat"]
    assert found[[2, 0]].scores.tolist() == pytest.approx([0.7, 0.9])
    assert [each.names[0] for each in found] == ["dog", "cat", "dog"]
    np.testing.assert_array_equal(found[1].masks[0], found.masks[1])
    with pytest.raises(IndexError, match="Detection 3 of 3"):
        found[3]


def test_a_summary():
    assert repr(detections()) == "<3 detections: 2 dog, 1 cat>"
    assert repr(detections(0)) == "<0 detections>"


def test_coco_results():
    results = detections().to_coco(7, category_ids=[10, 20])
    assert [r["category_id"] for r in results] == [20, 10, 20]
    assert results[1]["bbox"] == [10, 10, 20, 14]
    assert {r["image_id"] for r in results} == {7}
    np.testing.assert_array_equal(
        decode(results[1]["segmentation"]), detections().masks[1]
    )
    assert [r["category_id"] for r in detections().to_coco(7)] == [1, 0, 1]
    assert detections(0).to_coco(7) == []


def test_plot_writes_what_it_returns(tmp_path):
    picture = detections().plot(tmp_path / "folder" / "a.png")
    with Image.open(tmp_path / "folder" / "a.png") as file:
        np.testing.assert_array_equal(np.asarray(file), np.asarray(picture))
    assert picture.size == (60 * 8, 40 * 8)  # small photos are enlarged
    assert detections(0).plot().size == (480, 320)


def test_without_masks():
    (found,) = detect(Model(masks=False), photo())
    assert found.masks is None
    assert "segmentation" not in found.to_coco(1)[0]
    assert found.draw().width == 96 * 6
    with pytest.raises(ValueError, match="have no masks"):
        found.rles()


def test_images_are_read_when_asked_for(folder):
    (found, _) = detect(Model(), folder)
    np.testing.assert_array_equal(found.image, photo())
    found.path = None
    with pytest.raises(ValueError, match="neither a file nor an image"):
        _ = found.image


def test_supervision():
    supervision = pytest.importorskip("supervision")
    converted = detections().to_supervision()
    assert isinstance(converted, supervision.Detections)
    np.testing.assert_array_equal(converted.xyxy, detections().boxes)
    np.testing.assert_array_equal(converted.mask, detections().masks)
    assert converted.data["class_name"].tolist() == ["dog", "cat", "dog"]
    assert len(detections(0).to_supervision()) == 0


def test_without_supervision_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"pip install 'kvision\[viz\]'"):
        detections().to_supervision()


def test_ground_truth_of_a_batch_can_be_drawn_too():
    images = np.zeros((2, 32, 48, 3), np.float32)
    targets = {
        "gt_boxes": np.zeros((2, 3, 4), np.float32),
        "gt_labels": np.array([[-1, -1, -1], [0, -1, -1]], np.int32),
        "gt_masks": np.full((2, 3, 56, 56), 255, np.uint8),
        "image_sizes": np.array([[32, 48], [30, 40]], np.int32),
    }
    targets["gt_boxes"][1, :2] = [
        [4, 6, 20, 16],
        [20, 20, 30, 30],
    ]  # the second: a crowd
    found = from_targets(images, targets, 1, ["cat"])
    assert found.image_size == (30, 40)
    np.testing.assert_array_equal(found.boxes, [[4, 6, 20, 16]])
    assert found.masks.sum() == 160
    assert found.image.shape == (30, 40, 3)
    assert len(from_targets(images, targets, 0, ["cat"])) == 0


def test_frames_of_a_video(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as video:
        stream = video.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(7):
            frame = av.VideoFrame.from_ndarray(photo(), format="rgb24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    found = list(detect(Model(), frames(tmp_path / "a.mp4", step=2), stream=True))
    assert len(found) == 4
    np.testing.assert_allclose(found[0].boxes, [[20, 10, 60, 40]], atol=2.1)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"b\.mp4 cannot be read as a video"):
        next(frames(tmp_path / "b.mp4"))


def test_without_a_reader_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'kvision\[video\]'"):
        next(frames("a.mp4"))


def test_it_is_where_the_readme_says():
    assert kv.detect is detect
