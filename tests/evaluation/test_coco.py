"""COCO scores: by hand, against pycocotools' own summary, and on real ground truth."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kvision import evaluation
from kvision.evaluation import coco, coco_scores, ground_truth_results
from kvision.evaluation.masks import rles

ENGINES = ["pycocotools", "faster-coco-eval"]


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    if request.param == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    monkeypatch.setattr(coco, "engine", lambda: request.param)
    return request.param


def annotation(box, image_id=1, category_id=1, **more):
    """One object, without any of the keys that may be missing."""
    return {"image_id": image_id, "category_id": category_id, "bbox": box, **more}


def result(box, score, image_id=1, category_id=1):
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box,
        "score": score,
    }


def dataset(*annotations, images=1, classes=("cat",)):
    return {
        "images": [
            {"id": i, "height": 100, "width": 120} for i in range(1, images + 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, 1)],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations)],
    }


def random_case(seed, images=6, classes=3, objects=9, found=14):
    """Objects, crowds, good and bad detections with masks, as json would hold them."""
    rng = np.random.default_rng(seed)
    truth = dataset(images=images, classes=[f"class {k}" for k in range(classes)])
    results = []
    for image_id in range(1, images + 1):
        boxes = np.zeros((0, 4))
        for n in range(objects):
            start = rng.uniform(0, 70, 2)
            extent = rng.choice([8, 20, 45, 100]) * rng.uniform(0.6, 1.4, 2)
            box = np.concatenate([start, np.minimum(start + extent, [120, 100])])
            boxes = np.concatenate([boxes, box[None]])
            rle = rles(rng.random((1, 5, 5)) + 0.3, box[None], (100, 120))[0]
            truth["annotations"].append(
                annotation(
                    [*box[:2], *(box[2:] - box[:2])],
                    image_id,
                    int(rng.integers(1, classes + 1)),
                    id=image_id * 100 + n,
                    iscrowd=int(n == 0 and image_id % 2),
                    segmentation=rle,
                )
            )
        jitter = rng.normal(0, 3, (found, 4))
        moved = boxes[rng.integers(0, objects, found)] + jitter
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        for box in moved:
            rle = rles(rng.random((1, 5, 5)) + 0.4, box[None], (100, 120))[0]
            results.append(
                {
                    **result(
                        [*box[:2], *(box[2:] - box[:2])],
                        round(float(rng.random()), 2),  # with ties
                        image_id,
                        int(rng.integers(1, classes + 1)),
                    ),
                    "segmentation": rle,
                }
            )
    return truth, results


def test_average_precision_by_hand(engine):
    truth = dataset(annotation([0, 0, 10, 10]), annotation([50, 50, 40, 40]))
    found = [
        result([0, 0, 10, 10], 0.9),
        result([90, 0, 20, 20], 0.8),
        result([50, 50, 40, 40], 0.7),
    ]
    scores = coco_scores(truth, found)
    # Precision 1 at the 51 recall points up to 0.5, 2/3 at the 50 points above.
    assert scores["box_ap"] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-6)
    assert scores["box_ap_small"] == pytest.approx(1.0)
    # Of medium size (40^2) the false detection (20^2) is none, so it does not count.
    assert scores["box_ap_medium"] == pytest.approx(1.0)
    assert scores["box_ap_large"] == -1
    assert scores["box_ar1"] == pytest.approx(0.5)
    assert scores["box_ar10"] == scores["box_ar100"] == pytest.approx(1.0)
    assert not [key for key in scores if key.startswith("mask_")]


def test_overlap_decides_at_which_thresholds_a_box_counts(engine):
    # Intersection 80 of a union of 100: IoU 0.8 counts for 0.50 ... 0.80, 7 of 10.
    truth = dataset(annotation([0, 0, 10, 10]))
    scores = coco_scores(truth, [result([0, 0, 10, 8], 0.9)])
    assert scores["box_ap"] == pytest.approx(0.7)
    assert scores["box_ap50"] == scores["box_ap75"] == pytest.approx(1.0)


def test_a_detection_in_a_crowd_is_neither_right_nor_wrong(engine):
    truth = dataset(annotation([0, 0, 10, 10]), annotation([50, 50, 40, 40], iscrowd=1))
    found = [result([55, 55, 10, 10], 0.9), result([0, 0, 10, 10], 0.5)]
    assert coco_scores(truth, found)["box_ap"] == pytest.approx(1.0)


def test_no_detections_score_zero(engine):
    truth, _ = random_case(0)
    scores = coco_scores(truth, [], masks=True)
    assert scores["box_ap"] == scores["mask_ap"] == scores["box_ar100"] == 0
    assert scores["per_class"]["class 0"]["mask_ap"] == 0


def test_no_objects_score_minus_one(engine):
    assert coco_scores(dataset(), [result([0, 0, 9, 9], 0.9)])["box_ap"] == -1
    assert coco_scores(dataset(), [])["box_ap"] == -1


@pytest.mark.parametrize("ids", [[0, 1, 2], [7, 7, 7], [None] * 3])
def test_annotation_ids_do_not_matter(engine, ids):
    truth = dataset(*(annotation([30 * k, 0, 20, 20]) for k in range(3)))
    for item, number in zip(truth["annotations"], ids, strict=True):
        item["id"] = number
    scores = coco_scores(truth, ground_truth_results(truth, masks=False))
    assert scores["box_ap"] == pytest.approx(1.0)


def test_every_number_of_detections_is_possible(engine):
    truth = dataset(
        *(annotation([(k % 20) * 6, k // 20 * 6, 5, 5]) for k in range(150))
    )
    found = ground_truth_results(truth, masks=False)
    scores = coco_scores(truth, found, max_detections=150)
    assert scores["box_ap"] == scores["box_ar150"] == pytest.approx(1.0)
    assert scores["box_ar10"] == pytest.approx(10 / 150)
    few = coco_scores(truth, found, max_detections=5)
    assert few["box_ar5"] == pytest.approx(5 / 150)
    assert "box_ar10" not in few
    # Recall points 0, 0.01, 0.02, 0.03 are reached with precision 1.
    assert few["box_ap"] == pytest.approx(4 / 101)
    assert list(few)[:-1] == evaluation.figure_names(masks=False, max_detections=5)


@pytest.mark.parametrize("masks", [False, True])
def test_the_twelve_figures_are_those_pycocotools_prints(engine, masks):
    truth, found = random_case(1)
    scores = coco_scores(truth, found, masks=masks)
    # pycocotools cannot do without an area; and where a result has a box, it takes the
    # box's area for the mask's.
    truth["annotations"] = copy.deepcopy(coco.read_annotations(truth).boxes)
    if masks:
        found = [{k: v for k, v in item.items() if k != "bbox"} for item in found]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth
        reference.createIndex()
        loaded = reference.loadRes(copy.deepcopy(found))
        run = COCOeval(reference, loaded, "segm" if masks else "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    kind = "mask" if masks else "box"
    names = [n for n in evaluation.figure_names(masks) if n.startswith(kind)]
    ours = [scores[name] for name in names]
    np.testing.assert_allclose(ours, run.stats, atol=5e-7)
    assert len({round(value, 3) for value in ours}) > 8  # not a trivial case


@pytest.mark.parametrize("seed", range(5))
def test_both_engines_agree_to_six_digits(monkeypatch, seed):
    pytest.importorskip("faster_coco_eval")
    truth, found = random_case(seed, found=30)
    both = []
    for name in ENGINES:
        monkeypatch.setattr(coco, "engine", lambda name=name: name)
        scores = coco_scores(truth, found, max_detections=20 + seed)
        per_class = scores.pop("per_class")
        for number, figures in enumerate(per_class.values()):
            scores |= {f"{number} {key}": value for key, value in figures.items()}
        both.append(scores)
    assert both[0].keys() == both[1].keys()
    assert len(both[0]) == 24 * 4
    np.testing.assert_allclose(
        list(both[0].values()), list(both[1].values()), atol=5e-7
    )


def test_classes_are_scored_one_by_one_and_by_name(engine):
    truth, found = random_case(2)
    everything = coco_scores(truth, found, masks=True)
    names = ["class 2", "class 0"]
    some = coco_scores(truth, found, masks=True, class_names=names)
    assert list(some["per_class"]) == names
    for name in names:
        assert some["per_class"][name] == pytest.approx(everything["per_class"][name])
        alone = coco_scores(truth, found, masks=True, class_names=[name])
        assert alone["mask_ap"] == pytest.approx(some["per_class"][name]["mask_ap"])
    mean = np.mean([some["per_class"][name]["box_ap50"] for name in names])
    assert some["box_ap50"] == pytest.approx(mean)


def test_only_the_named_images_count(engine):
    truth = dataset(
        annotation([0, 0, 9, 9]), annotation([0, 0, 9, 9], image_id=2), images=2
    )
    found = [result([0, 0, 9, 9], 0.5)]
    assert coco_scores(truth, found)["box_ar100"] == pytest.approx(0.5)
    assert coco_scores(truth, found, image_ids=[1])["box_ar100"] == pytest.approx(1)
    with pytest.raises(ValueError, match=r"no images with the ids \[8\] \(1 of 2"):
        coco_scores(truth, found, image_ids=[1, 8])


def test_the_users_data_stay_as_they_are(engine):
    truth, found = random_case(3)
    before = json.dumps([truth, found])
    coco_scores(truth, found)
    assert json.dumps([truth, found]) == before


def test_nothing_is_printed(engine, capsys):
    truth, found = random_case(3)
    coco_scores(truth, found)
    assert capsys.readouterr() == ("", "")


def test_masks_are_scored_when_all_have_them():
    truth, found = random_case(4)
    assert "mask_ap" in coco_scores(truth, found)
    del found[3]["segmentation"]
    assert "mask_ap" not in coco_scores(truth, found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "Result 1 .*the score is not a finite number"),
        ({"image_id": 99}, "Result 1 .*no such image"),
        ({"category_id": 99}, "Result 1 .*no such category"),
        ({"bbox": [0, 0, float("inf"), 1]}, "Result 1 .*not four finite numbers"),
        ({"bbox": [0, 0, 1]}, "Result 1 "),
        ({"segmentation": None}, "Result 1 .*no segmentation, which masks=True"),
        ({"segmentation": {"size": [100, 120], "counts": "zz0"}}, "do not add up"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6]]}, "expected an RLE with size"),
        (
            {"segmentation": {"size": [120, 100], "counts": "x"}},
            r"for \(height, width\) \[120, 100\], the image has \[100, 120\]",
        ),
    ],
)
def test_results_that_cannot_be_scored_are_refused(change, message):
    truth, found = random_case(5)
    found[1].update(change)
    with pytest.raises(ValueError, match=message):
        coco_scores(truth, found, masks=True)


def test_a_result_without_a_key_is_refused():
    with pytest.raises(ValueError, match=r"Result 0 .*no 'score'"):
        coco_scores(
            dataset(), [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}]
        )


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="max_detections must be 1 or more"):
        coco_scores(dataset(), [], max_detections=0)
    with pytest.raises(ValueError, match="Nothing to score in annotations: 0 classes"):
        coco_scores(dataset(classes=[]), [])


@pytest.mark.parametrize(
    "path", ["coco_mini/annotations/instances_val2017.json", "nuclei/val.json"]
)
def test_ground_truth_given_back_scores_one(shared_data, path):
    truth = evaluation.read_annotations(shared_data / path)
    found = ground_truth_results(truth)
    scores = coco_scores(truth, found, max_detections=truth.largest_count)
    assert scores["box_ap"] == pytest.approx(1.0, abs=1e-9)
    assert scores["mask_ap"] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("path", "cells", "least"),
    [
        ("coco_mini/annotations/instances_val2017.json", 28, 0.996),
        ("coco_mini/annotations/instances_val2017.json", 56, 0.9999),
        ("nuclei/val.json", 28, 0.9999),
    ],
)
def test_what_a_mask_loses_in_a_grid_over_its_box(shared_data, path, cells, least):
    truth = evaluation.read_annotations(shared_data / path)
    found = ground_truth_results(truth, mask_size=cells)
    scores = coco_scores(truth, found, max_detections=truth.largest_count)
    assert scores["mask_ap"] >= least
