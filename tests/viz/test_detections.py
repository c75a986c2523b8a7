"""Drawn detections: what changes, what does not."""

import numpy as np
import pytest
from PIL import Image

from kvision import viz
from kvision.viz import detections
from kvision.viz.detections import class_color

GREY = np.full((60, 80, 3), 100, np.uint8)


def test_a_box_is_outlined_on_its_own_pixels():
    drawn = np.asarray(viz.draw_detections(GREY, [[10, 20, 30, 40]]))
    changed = (drawn != 100).any(axis=2)
    expected = np.zeros((60, 80), bool)
    expected[20:40, 10:30] = True
    expected[21:39, 11:29] = False
    np.testing.assert_array_equal(changed, expected)
    assert tuple(drawn[20, 10]) == class_color(0)


def test_a_mask_is_filled_translucent_with_a_contour():
    patch = (5, 6, np.ones((10, 12), bool))
    drawn = np.asarray(viz.draw_detections(GREY, [[6, 5, 18, 15]], masks=[patch]))
    color = np.array(class_color(0))
    np.testing.assert_array_equal(drawn[10, 12], np.round(100 + 0.4 * (color - 100.0)))
    np.testing.assert_array_equal(drawn[5, 6], color)
    untouched = np.ones((60, 80), bool)
    untouched[5:15, 6:18] = False
    assert (drawn[untouched] == 100).all()


def test_the_users_image_stays_as_it_is():
    image = GREY.copy()
    patch = (0, 0, np.ones((60, 80), bool))
    viz.draw_detections(image, [[0, 0, 80, 60]], captions=["cat"], masks=[patch])
    np.testing.assert_array_equal(image, GREY)


def test_a_small_mask_stays_visible_on_a_large_one():
    large, small = (0, 0, np.ones((60, 80), bool)), (20, 20, np.ones((9, 9), bool))
    boxes = [[0, 0, 80, 60], [20, 20, 29, 29]]
    for order in ([0, 1], [1, 0]):
        masks = [(large, small)[i] for i in order]
        drawn = viz.draw_detections(
            GREY, np.array(boxes)[order], labels=order, masks=masks, color_by="class"
        )
        assert drawn.getpixel((20, 20)) == class_color(1)


def test_instances_of_one_class_get_colours_of_their_own():
    patches = [(0, 0, np.ones((9, 9), bool)), (20, 20, np.ones((9, 9), bool))]
    boxes = [[0, 0, 9, 9], [20, 20, 29, 29]]
    drawn = viz.draw_detections(GREY, boxes, labels=[4, 4], masks=patches)
    assert drawn.getpixel((0, 0)) == class_color(0)
    assert drawn.getpixel((20, 20)) == class_color(1)
    drawn = viz.draw_detections(GREY, boxes, labels=[4, 4])
    assert drawn.getpixel((0, 0)) == drawn.getpixel((20, 20)) == class_color(4)


def test_nothing_detected_draws_nothing():
    drawn = viz.draw_detections(GREY, np.zeros((0, 4)), captions=[], masks=[])
    np.testing.assert_array_equal(np.asarray(drawn), GREY)


@pytest.mark.parametrize("box", [[-9, -9, 400, 400], [90, 70, 99, 99], [5, 5, 5, 5]])
def test_boxes_outside_the_image_do_no_harm(box):
    empty = (0, 0, np.zeros((0, 0), bool))
    drawn = viz.draw_detections(GREY, [box], captions=["a long caption"], masks=[empty])
    assert drawn.size == (80, 60)


def test_captions_do_not_cover_each_other(monkeypatch):
    plates = []
    place = detections._place
    monkeypatch.setattr(
        detections, "_place", lambda *args: plates.append(place(*args)) or plates[-1]
    )
    boxes = [[100, 100, 220, 180], [105, 102, 225, 182], [98, 99, 210, 181]]
    boxes += [[100, 101, 222, 180]] * 3
    image = np.zeros((480, 640, 3), np.uint8)
    viz.draw_detections(image, boxes, captions=["person 0.99"] * 6)
    written = [plate for plate in plates if plate is not None]
    assert 3 <= len(written) <= 5
    for index, one in enumerate(written):
        assert not any(detections._meet(one, other) for other in written[:index])
        assert one[0] >= 0
        assert one[2] < 640


def test_the_plate_of_a_caption_has_the_colour_of_its_box_and_text_to_read():
    image = np.zeros((480, 640, 3), np.uint8)
    drawn = np.asarray(
        viz.draw_detections(image, [[50, 90, 300, 300]], captions=["cat"])
    )
    plate = drawn[75:88, 50:70].reshape(-1, 3)
    assert (plate == class_color(0)).all(axis=1).mean() > 0.3
    assert (plate == 255).all(axis=1).any()  # white on a dark colour


def test_colours_stay_and_differ():
    colors = [class_color(label) for label in range(40)]
    assert len(set(colors)) == 40
    assert colors == [class_color(label) for label in range(40)]
    assert all(0 <= value <= 255 for color in colors for value in color)


def test_lines_grow_with_the_photo():
    for side, width in ((80, 1), (640, 2), (4000, 12)):
        assert detections._line_width((side // 2, side, 3)) == width


def test_small_images_are_enlarged_for_captions():
    assert viz.picture_zoom((128, 128)) == 4
    assert viz.picture_zoom((256, 300)) == 2
    assert viz.picture_zoom((3000, 4000)) == 1
    assert viz.picture_zoom((1, 1)) == 8


def test_pillow_images_of_any_mode_are_taken():
    drawn = viz.draw_detections(Image.new("L", (20, 10), 7), [[2, 2, 9, 9]])
    assert drawn.mode == "RGB"
    assert drawn.getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize(
    "image", [np.zeros((5, 5, 3), np.float32), np.zeros((5, 5), np.uint8)]
)
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match=r"shape \(H, W, 3\) and dtype uint8"):
        viz.draw_detections(image, [])
