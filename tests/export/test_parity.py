"""What a comparison says, prints and raises."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision.export.matching import Difference, Spread, Tolerance
from kvision.export.parity import Parity, ParityError, check, in_batches, runner


def difference(**changed: Any) -> Difference:
    values = {
        "form": "float32",
        "num_images": 8,
        "num_detections": 120,
        "num_matched": 120,
        "num_unmatched": 0,
        "boxes": Spread(1e-5, 2e-3),
        "scores": Spread(1e-7, 4e-6),
        "masks": Spread(2e-6, 3e-5),
        "tolerance": Tolerance(),
    }
    return Difference(**values | changed)


def parity(*differences: Difference) -> Parity:
    return Parity(Path("shapes.tflite"), 1_500_000, differences)


def test_good_one_is_printed_and_given_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = parity(difference())
    assert check(good) is good
    printed = capsys.readouterr().out
    assert "shapes.tflite (1.5 MB) against the model, 8 images" in printed
    for text in ("float32", "120", "1e-05/0.002", "1e-07/4e-06", "2e-06/3e-05"):
        assert text in printed
    assert "AP" not in printed
    assert "proves little" not in printed


def test_ap_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    ap = {"box_ap": (0.41, 0.405), "mask_ap": (0.40, 0.402)}
    parity(difference(form="int8", tolerance=None, ap=ap, max_ap_lost=0.01)).print()
    printed = capsys.readouterr().out
    assert "int8: box AP 41.00 to 40.50 (-0.50 points), mask AP" in printed
    assert "(+0.20 points)" in printed


def test_every_form_must_be_good(capsys: pytest.CaptureFixture[str]) -> None:
    worse = difference(
        form="int8", tolerance=None, ap={"box_ap": (0.4, 0.3)}, max_ap_lost=0.01
    )
    far = difference(form="serving_xla", num_matched=100, num_unmatched=20)
    both = parity(difference(form="serving_default"), worse, far)
    with pytest.raises(ParityError, match=r"shapes\.tflite was not written") as error:
        check(both)
    assert error.value.parity is both
    assert len(both.problems) == 2
    for problem in both.problems:
        assert problem in str(error.value)
    printed = capsys.readouterr().out  # the table comes first
    assert "serving_default" in printed
    assert "serving_xla" in printed
    assert "…" not in printed


def test_few_detections_are_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    few = parity(difference(), difference(form="int8", num_detections=3))
    assert not few.is_conclusive
    assert parity(difference()).is_conclusive
    check(few)
    assert "int8: only 3 detections to compare" in capsys.readouterr().out


def test_dict_is_json() -> None:
    values = json.loads(json.dumps(parity(difference()).to_dict()))
    assert values["path"] == "shapes.tflite"
    assert values["num_bytes"] == 1_500_000
    assert values["is_conclusive"] is True
    assert values["problems"] == []
    assert values["differences"][0]["boxes"] == {"median": 1e-5, "largest": 2e-3}


@pytest.mark.parametrize("number", [1, 3, 4, 6, 9])
def test_batches_have_one_shape(number: int) -> None:
    images = np.arange(number * 2, dtype=np.float32).reshape(number, 2)
    shapes = set()

    def run(batch: tf.Tensor) -> dict[str, tf.Tensor]:
        shapes.add(tuple(batch.shape))
        return {"doubled": batch * 2, "sum": tf.reduce_sum(batch, axis=1)}

    found = in_batches(run, {"batch": images})
    np.testing.assert_array_equal(found["doubled"], images * 2)
    np.testing.assert_array_equal(found["sum"], images.sum(1))
    assert shapes == {(min(number, 4), 2)}


def test_runner_is_the_model_in_inference(
    detector: keras.Model, images: np.ndarray
) -> None:
    found = runner(detector)(tf.constant(images[:1]))
    expected = detector(images[:1], training=False)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-3)
