"""Checks and completions of COCO annotations before scoring."""

import copy
import json

import numpy as np
import pytest

from kvision.evaluation.annotations import read_annotations

SQUARE = [2, 3, 6, 3, 6, 8, 2, 8]  # 4 x 5 pixels at (2, 3)


def dataset():
    return {
        "images": [{"id": 5, "height": 10, "width": 12}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {
                "id": 0,
                "image_id": 5,
                "category_id": 9,
                "bbox": [2, 3, 4, 5],
                "segmentation": [SQUARE],
            }
        ],
    }


def test_gaps_are_filled_and_ids_start_at_1():
    annotation = read_annotations(dataset()).boxes[0]
    assert annotation["id"] == 1
    assert annotation["iscrowd"] == 0
    assert annotation["area"] == 20


def test_a_missing_box_comes_from_the_mask():
    data = dataset()
    del data["annotations"][0]["bbox"]
    assert read_annotations(data).boxes[0]["bbox"] == [2, 3, 4, 5]


def test_a_missing_area_without_mask_is_that_of_the_box():
    data = dataset()
    del data["annotations"][0]["segmentation"]
    data["annotations"][0]["bbox"] = [0, 0, 3, 7]
    assert read_annotations(data).boxes[0]["area"] == 21


def test_the_users_data_stay_as_they_are():
    data = dataset()
    before = copy.deepcopy(data)
    assert read_annotations(data).masks
    assert data == before


def test_polygons_and_both_kinds_of_rle_give_one_mask():
    data = dataset()
    polygon = read_annotations(data).masks[0]["segmentation"]
    data["annotations"][0]["segmentation"] = polygon
    compressed = read_annotations(data).masks[0]["segmentation"]
    # Columns of 10: two empty ones, three down to the square, 5 in, 5 out, ...
    counts = [23, 5, 5, 5, 5, 5, 5, 5, 62]
    data["annotations"][0]["segmentation"] = {"size": [10, 12], "counts": counts}
    runs = read_annotations(data).masks[0]["segmentation"]
    assert polygon["counts"] == compressed["counts"] == runs["counts"]


def test_a_file_is_named_in_messages(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('{"images": [')
    with pytest.raises(ValueError, match=r"broken\.json is not JSON.*line 1"):
        read_annotations(path)
    path.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(ValueError, match=r'broken\.json: no list "categories"'):
        read_annotations(path)


def test_reading_twice_does_nothing():
    truth = read_annotations(dataset())
    assert read_annotations(truth) is truth


def test_categories_are_found_by_name():
    truth = read_annotations(dataset())
    assert truth.category_ids(["dog", "cat"]) == [9, 3]
    with pytest.raises(ValueError, match=r"no category named \['cow'\].*'cat', 'dog'"):
        truth.category_ids(["dog", "cow"])
    truth.categories[11] = "dog"
    with pytest.raises(ValueError, match=r"several categories named \['dog'\]"):
        truth.category_ids(["dog"])


def test_counts_leave_crowds_out():
    data = dataset()
    first = data["annotations"][0]
    data["annotations"] += [dict(first, id=1), dict(first, id=2, iscrowd=1)]
    assert read_annotations(data).largest_count == 2


NAN, FAR = float("nan"), 1e9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 6}, "annotation 0: no image 6"),
        ({"category_id": 1}, "annotation 0: no category 1"),
        ({"bbox": [0, 0, NAN, 1]}, "annotation 0: bbox .* is not four numbers"),
        ({"bbox": [0, 0, 1], "area": 1}, "is not four numbers"),
        ({"bbox": None, "segmentation": None}, "neither bbox nor segmentation"),
        ({"segmentation": [[1, 2, 3, 4]]}, "3 points or more.* Received 4 numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "Received 7 numbers"),
        # These two would end the process inside pycocotools.
        ({"segmentation": [[1, 2, NAN, 4, 5, 6]]}, "out of all range"),
        ({"segmentation": [[1, 2, FAR, 4, 5, 6]]}, "out of all range"),
        ({"segmentation": []}, "no segmentation. Score boxes only"),
        (
            {"segmentation": {"size": [12, 10], "counts": [120]}},
            r"for \(height, width\) \[12, 10\], the image has \[10, 12\]",
        ),
        ({"segmentation": {"size": [10, 12], "counts": [119]}}, "do not add up"),
        ({"segmentation": {"size": [10, 12], "counts": None}}, "do not add up"),
        ({"segmentation": {"size": [10, 12], "counts": "zz0"}}, "do not add up"),
        ({"segmentation": {"size": [10, 12]}}, "expected an RLE with size and counts"),
    ],
)
def test_faults_are_named(change, message):
    data = dataset()
    data["annotations"][0].update(change)
    with pytest.raises(ValueError, match=message):
        _ = read_annotations(data).masks


def test_shared_ids_are_refused():
    data = dataset()
    data["images"].append(dict(data["images"][0]))
    with pytest.raises(ValueError, match=r"images share the ids \[5\]"):
        read_annotations(data)
    data = dataset()
    data["categories"][1]["id"] = 3
    with pytest.raises(ValueError, match=r"categories share the ids \[3\]"):
        read_annotations(data)


def test_masks_need_the_size_of_their_image():
    data = dataset()
    data["annotations"][0]["area"] = np.float64(20)
    del data["images"][0]["height"]
    truth = read_annotations(data)
    assert truth.boxes[0]["area"] == 20
    with pytest.raises(ValueError, match="image 5 states no height and width"):
        _ = truth.masks
