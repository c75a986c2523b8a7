"""Where an image lands in the model's input; training sees what detect sees."""

import logging

import numpy as np
import pytest

from kvision.compat import matterport as utils
from kvision.compat.matterport.ground_truth import (
    load_image_gt,
    mold_image,
    unmold_image,
)
from kvision.compat.matterport.molding import Molding, mold, mold_masks, molding_of
from kvision.compat.matterport.results import unmold
from kvision.compat.matterport.training_data import (
    DatasetSource,
    training_batches,
    validation_batches,
)
from kvision.data import HorizontalFlip
from tests.compat.small import SmallConfig, Squares, with_settings


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "min_dim", "max_dim", "min_scale", "window", "scale"),
    [
        # Enlarged until the shorter side has 48, then padded on both sides.
        ((24, 32), 48, 128, 0, (40, 32, 88, 96), 2.0),
        # The longer side limits.
        ((24, 64), 48, 64, 0, (20, 0, 44, 64), 1.0),
        # Only this reduces.
        ((100, 200), 48, 64, 0, (16, 0, 48, 64), 0.32),
        ((30, 30), None, 64, 0, (17, 17, 47, 47), 1.0),
        ((10, 12), 10, 64, 3.0, (17, 14, 47, 50), 3.0),
        # Halves go to the even number, as in Python: 22.5 and 7.5.
        ((15, 5), 5, 64, 1.5, (21, 28, 43, 36), 1.5),
    ],
)
def test_square(
    size: tuple[int, int],
    min_dim: int | None,
    max_dim: int,
    min_scale: float,
    window: tuple[int, ...],
    scale: float,
) -> None:
    image = picture(*size)
    found = utils.resize_image(image, min_dim, max_dim, min_scale, "square")
    molded, found_window, found_scale, padding, crop = found
    assert molded.shape == (max_dim, max_dim, 3)
    assert found_window == window
    assert found_scale == pytest.approx(scale)
    assert crop is None
    y1, x1, y2, x2 = window
    assert padding == [(y1, max_dim - y2), (x1, max_dim - x2), (0, 0)]
    assert (molded[y1:y2, x1:x2] > 0).all()
    assert molded.astype(int).sum() == molded[y1:y2, x1:x2].astype(int).sum()
    if scale == 1:
        np.testing.assert_array_equal(molded[y1:y2, x1:x2], image)


def test_pad64() -> None:
    molded, window, scale, padding, _ = utils.resize_image(
        picture(70, 128), min_dim=64, mode="pad64"
    )
    assert molded.shape == (128, 128, 3)
    assert window == (29, 0, 99, 128)
    assert scale == 1
    assert padding == [(29, 29), (0, 0), (0, 0)]


def test_none() -> None:
    image = picture(17, 19)
    molded, window, _, _, _ = utils.resize_image(image, 800, 1024, 2.0, "none")
    np.testing.assert_array_equal(molded, image)
    assert window == (0, 0, 17, 19)


def test_crop_is_a_part_of_the_image() -> None:
    image = picture(40, 90)
    seen = set()
    for _ in range(8):
        molded, window, scale, _, crop = utils.resize_image(image, 32, mode="crop")
        y, x, height, width = crop
        assert (height, width) == (32, 32)
        assert window == (0, 0, 32, 32)
        assert scale == 1
        np.testing.assert_array_equal(molded, image[y : y + 32, x : x + 32])
        seen.add((y, x))
    assert len(seen) > 4


def test_crop_enlarges_first() -> None:
    molded, _, scale, _, _ = utils.resize_image(picture(20, 30), 32, None, 2.0, "crop")
    assert molded.shape == (32, 32, 3)
    assert scale == 2


def test_masks_move_with_their_image() -> None:
    mask = np.zeros((24, 32, 1), bool)
    mask[4:10, 6:20] = True
    image = np.repeat(mask, 3, axis=2).astype(np.uint8) * 255
    molded = mold(image, Molding("square", 48, 128))
    moved = mold_masks(mask, molded)
    assert moved.shape == (128, 128, 1)
    assert utils.extract_bboxes(moved).tolist() == [[40 + 8, 32 + 12, 40 + 20, 32 + 40]]
    np.testing.assert_array_equal(moved[..., 0], molded.image[..., 0] > 127)


def test_ground_truth_for_looking() -> None:
    dataset = Squares().fill(2)
    image, meta, class_ids, boxes, masks = load_image_gt(dataset, SmallConfig(), 1)
    assert image.shape == (64, 64, 3)
    assert class_ids.tolist() == [1, 2]
    np.testing.assert_array_equal(boxes, utils.extract_bboxes(masks))
    assert (image[masks[..., 0]] == (230, 200, 40)).mean() > 0.8
    assert meta.shape == (SmallConfig().IMAGE_META_SIZE,)
    # 48 x 60 pixels, enlarged to 51 x 64.
    assert meta[:11].tolist() == [1, 48, 60, 3, 64, 64, 3, 6, 0, 57, 64]
    assert meta[11] == pytest.approx(64 / 60)
    assert meta[12:].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="takes no use_mini_mask"):
        load_image_gt(dataset, SmallConfig(), 1, use_mini_mask=True)


def test_mean_pixel() -> None:
    image, config = picture(4, 5), SmallConfig()
    molded = mold_image(image, config)
    assert molded.dtype == np.float32
    expected = image[0, 0] - [123.7, 116.8, 103.9]
    np.testing.assert_allclose(molded[0, 0], expected, atol=1e-5)
    np.testing.assert_array_equal(unmold_image(molded, config), image)


def test_training_sees_what_detect_sees() -> None:
    dataset, config = Squares().fill(3), with_settings(IMAGES_PER_GPU=3)
    batches = training_batches(DatasetSource(dataset, config), config, None, 0)
    images, targets = next(iter(batches))
    order = targets["image_ids"].numpy()
    assert sorted(order) == [0, 1, 2]
    for row, image_id in enumerate(order):
        molded = mold(dataset.load_image(image_id), molding_of(config))
        np.testing.assert_array_equal(images[row].numpy(), molded.image)
        _, _, class_ids, boxes, _ = load_image_gt(dataset, config, image_id)
        labels = targets["gt_labels"][row].numpy()
        assert labels.tolist() == [*(class_ids - 1), -1, -1]
        found = targets["gt_boxes"][row].numpy()[:2]
        # Theirs are of whole pixels of the enlarged image.
        np.testing.assert_allclose(found, boxes[:, [1, 0, 3, 2]], atol=1)
        grids = targets["gt_masks"][row].numpy()
        assert grids.shape == (4, 56, 56)
        assert (grids[:2] == 255).all()
        assert not grids[2:].any()


def test_truth_comes_back_to_the_pixels_of_the_image() -> None:
    """Through batches, and from there the way detections go."""
    dataset, config = Squares().fill(3), with_settings(IMAGES_PER_GPU=3)
    batches = training_batches(DatasetSource(dataset, config), config, None, 0)
    _, targets = next(iter(batches))
    outputs = {
        "boxes": targets["gt_boxes"].numpy(),
        "labels": targets["gt_labels"].numpy(),
        "scores": np.ones((3, 4), np.float32),
        "masks": targets["gt_masks"].numpy() / np.float32(255),
    }
    for row, image_id in enumerate(targets["image_ids"].numpy()):
        image = dataset.load_image(image_id)
        molded = mold(image, molding_of(config))
        found = unmold(outputs, row, molded, image.shape[:2])
        masks, class_ids = dataset.load_mask(image_id)
        assert found["rois"].dtype == np.int32
        assert found["rois"].tolist() == utils.extract_bboxes(masks).tolist()
        assert found["class_ids"].tolist() == class_ids.tolist()
        np.testing.assert_array_equal(found["masks"], masks)


def test_boxes_by_matterports_rule() -> None:
    """Source: mrcnn/model.py, unmold_detections, in its steps."""
    molded = mold(picture(40, 90), Molding("square", 100, 192))
    assert molded.window == (53, 0, 138, 192)
    boxes = np.float32([[3, 60, 50, 90], [100, 55, 192, 138], [-4, 50, 20, 60]])
    outputs = {
        "boxes": boxes[None],
        "labels": np.array([[0, 1, 0]]),
        "scores": np.float32([[0.9, 0.8, 0.7]]),
        "masks": np.ones((1, 3, 28, 28), np.float32),
    }
    side = 192 - 1  # boxes are relative to the size less one, in and out
    inside = (boxes[:, [1, 0, 3, 2]] - [0, 0, 1, 1]) / side
    y1, x1, y2, x2 = (np.array(molded.window) - [0, 0, 1, 1]) / side
    inside = (inside - [y1, x1, y1, x1]) / [y2 - y1, x2 - x1, y2 - y1, x2 - x1]
    expected = np.around(inside * [39, 89, 39, 89] + [0, 0, 1, 1]).astype(int)
    expected = np.clip(expected, 0, [40, 90, 40, 90])
    found = unmold(outputs, 0, molded, (40, 90))
    assert found["rois"].tolist() == expected.tolist()
    np.testing.assert_array_equal(utils.extract_bboxes(found["masks"]), found["rois"])


def test_order_goes_on_where_training_stopped() -> None:
    dataset, config = Squares().fill(5), SmallConfig()

    def ids(first: int, count: int) -> list[list[int]]:
        source = DatasetSource(dataset, config)
        batches = training_batches(source, config, None, first).take(count)
        return [targets["image_ids"].numpy().tolist() for _, targets in batches]

    whole = ids(0, 7)
    assert ids(4, 3) == whole[4:]
    # Three batches hold each image once, and one of them twice.
    assert {i for batch in whole[:3] for i in batch} == {0, 1, 2, 3, 4}
    source = DatasetSource(dataset, config)
    validation = validation_batches(source, config)
    first, second = (
        [t["image_ids"].numpy().tolist() for _, t in validation] for _ in range(2)
    )
    assert first == second
    assert len(first) == config.VALIDATION_STEPS


def test_augmentation_comes_after() -> None:
    dataset, config = Squares().fill(1), with_settings(IMAGES_PER_GPU=1)
    source = DatasetSource(dataset, config)
    plain = next(iter(training_batches(source, config, None, 0)))
    flipped = next(iter(training_batches(source, config, [HorizontalFlip(1.0)], 0)))
    np.testing.assert_array_equal(flipped[0][0], plain[0][0, :, ::-1])
    before, after = (t["gt_boxes"][0, 0].numpy() for _, t in (plain, flipped))
    np.testing.assert_allclose(after[[0, 2]], 64 - before[[2, 0]])
    np.testing.assert_allclose(after[[1, 3]], before[[1, 3]])

    class Fliplr:
        def to_deterministic(self) -> None: ...

        def __call__(self, *_: object) -> None: ...

    for augmentation in (Fliplr(), [Fliplr()], 0.5):
        with pytest.raises(ValueError, match=r"list of transforms.*imgaug"):
            training_batches(source, config, augmentation, 0)


def test_crops_in_training() -> None:
    class Large(Squares):
        sizes = ((100, 90),)

    dataset = Large().fill(1)
    config = with_settings(
        IMAGE_RESIZE_MODE="crop", IMAGES_PER_GPU=4, IMAGE_MIN_SCALE=2.0
    )
    source = DatasetSource(dataset, config)
    images, targets = next(iter(training_batches(source, config, None, 0)))
    assert images.shape == (4, 64, 64, 3)
    assert len({image.tobytes() for image in images.numpy()}) > 1
    for image, boxes, labels in zip(
        images.numpy(),
        targets["gt_boxes"].numpy(),
        targets["gt_labels"].numpy(),
        strict=True,
    ):
        for box, label in zip(boxes, labels, strict=True):
            if label >= 0:
                x1, y1, x2, y2 = np.rint(box).astype(int)
                channel = 0 if label == 0 else 2
                inside = image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1, channel]
                assert (inside > 150).all()


def test_crowds_and_what_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    class Many(Squares):
        def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
            masks, _ = super().load_mask(image_id)
            empty = np.zeros_like(masks[..., :1])
            masks = np.concatenate([empty, masks, masks, masks[..., :1]], axis=-1)
            return masks, np.array([1, -1, 2, 1, 2, 1])

    dataset = Many()
    dataset.load_image = lambda _: np.zeros((64, 64, 3), np.uint8)  # type: ignore
    config = with_settings(IMAGES_PER_GPU=1)
    source = DatasetSource(dataset.fill(1), config)
    batches = training_batches(source, config, None, 0).take(2)
    _, targets = list(batches)[1]
    assert targets["gt_labels"][0].numpy().tolist() == [-1, 1, 0, 1]
    assert targets["gt_boxes"][0, 0].numpy().any(), "a crowd keeps its box"
    assert not caplog.messages
    with caplog.at_level(logging.WARNING, "kvision"):
        source.tell()
    empty, crowded = caplog.messages
    assert empty.startswith("1 masks of 1 images are empty and were left out (image 0")
    assert crowded.startswith(
        "1 images have more than MAX_GT_INSTANCES=4 objects (imag"
    )
    source = DatasetSource(Squares().fill(2), config)
    caplog.clear()
    source.tell()
    assert not caplog.messages


def test_sizes_that_training_cannot_batch() -> None:
    dataset = Squares().fill(2)
    for mode in ("none", "pad64"):
        config = with_settings(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=None)
        source = DatasetSource(dataset, config)
        assert source.load_image(0).shape == (64, 64, 3)
        if mode == "pad64":
            assert source.load_image(1).shape == (48, 60, 3)
    source = DatasetSource(dataset, with_settings(IMAGE_RESIZE_MODE="none"))
    with pytest.raises(ValueError, match=r"'none' brings image 1 .*\(48, 60\), but"):
        source.load_image(1)
    assert isinstance(source.fault, ValueError)
