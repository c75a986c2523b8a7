"""COCOMetrics inside fit, on a small model whose detections are its weights."""

import csv
import json
import logging
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvision as kv
from kvision.train.callbacks import COCOMetrics

IMAGES, SIZE = 5, 32
BOXES = np.array([[4, 4, 14, 14], [12, 16, 30, 26]], np.float32)


class Boxes(keras.layers.Layer):
    """Puts out two boxes that are its weights, whatever the images show."""

    def __init__(self, masks, **kwargs):
        super().__init__(**kwargs)
        self.masks = masks

    def build(self, input_shape):
        self.shift = self.add_weight(name="shift", initializer="zeros")

    def call(self, images):
        batch = keras.ops.shape(images)[0]
        boxes = keras.ops.convert_to_tensor(BOXES) + self.shift
        boxes = keras.ops.concatenate([boxes, keras.ops.zeros((1, 4))], 0)

        def tile(value):
            return keras.ops.repeat(value[None], batch, axis=0)

        outputs = {
            "boxes": tile(boxes),
            "scores": tile(keras.ops.convert_to_tensor([0.9, 0.8, 0.0])),
            "labels": tile(keras.ops.convert_to_tensor([0, 1, -1])),
            "num_detections": keras.ops.full((batch,), 2, "int32"),
        }
        if self.masks:
            outputs["masks"] = keras.ops.ones((batch, 3, 4, 4))
        return outputs


class Detector(keras.Model):
    """What COCOMetrics needs of a detector, and a loss that moves the boxes."""

    class_names = ("cat", "dog")

    def train_step(self, data):
        images, _ = data
        with tf.GradientTape() as tape:
            loss = keras.ops.square(self(images)["boxes"][0, 0, 0] - 4.0 - 3.0)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, weights), weights, strict=True)
        )
        return {"loss": loss}

    def test_step(self, data):
        loss = keras.ops.square(self(data[0])["boxes"][0, 0, 0] - 7.0)
        self._loss_tracker.update_state(loss)
        return self.get_metrics_result()


def detector(masks=True, learning_rate=0.0, run_eagerly=True, **optimizer):
    images = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    model = Detector(images, Boxes(masks)(images))
    sgd = keras.optimizers.SGD(learning_rate, **optimizer)
    model.compile(sgd, run_eagerly=run_eagerly)  # eagerly nothing is traced, so fast
    return model


def dataset(batch_size=2, count=IMAGES):
    """Images twice as large in the original, listed in another order."""
    ids = np.arange(100, 100 + count)[::-1].copy()
    targets = {
        "image_ids": ids.astype(np.int64),
        "scales": np.full((count, 2), 0.5, np.float32),
        "original_sizes": np.full((count, 2), 64, np.int32),
    }
    images = np.zeros((count, SIZE, SIZE, 3), np.uint8)
    return tf.data.Dataset.from_tensor_slices((images, targets)).batch(batch_size)


def annotations(count=IMAGES, shift=0.0, classes=("dog", "cow", "cat")):
    """The boxes of the model moved by `shift` pixels of its input; ids from 7."""
    ids = {name: 7 + k for k, name in enumerate(classes)}
    present = [
        each for each in zip(("cat", "dog"), BOXES, strict=True) if each[0] in ids
    ]
    items = []
    for image_id in range(100, 100 + count):
        for name, box in present:
            x1, y1, x2, y2 = ((box + shift) * 2).tolist()
            items.append(
                {
                    "image_id": image_id,
                    "category_id": ids[name],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                }
            )
    return {
        "images": [
            {"id": i, "height": 64, "width": 64} for i in range(100, 100 + count)
        ],
        "categories": [{"id": i, "name": name} for name, i in ids.items()],
        "annotations": items,
    }


def fit(model, *callbacks, epochs=1, **kwargs):
    kwargs |= {"epochs": epochs, "callbacks": list(callbacks), "shuffle": False}
    return model.fit(dataset(), verbose=0, **kwargs).history


def test_scores_in_original_pixels_are_in_the_history():
    metrics = COCOMetrics(dataset(), annotations())
    history = fit(detector(), metrics)
    assert history["val_box_ap"] == [pytest.approx(1.0)]
    # Squares of 20 and of 36 x 20 original pixels; pasted corners fade.
    assert history["val_mask_ap"][0] > 0.85
    kinds = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    names = {f"val_{kind}_{name}" for kind in ("box", "mask") for name in kinds}
    assert set(history) == names | {"loss"}
    assert metrics.scores["box_ar100"] == pytest.approx(1.0)
    assert list(metrics.scores["per_class"]) == ["cat", "dog"]
    assert len(metrics.results) == 2 * IMAGES
    assert metrics.seconds > 0


def test_figures_follow_the_weights():
    # Each epoch of one step moves the boxes towards +3 px: out of where they belong.
    model = detector(masks=False, learning_rate=0.2)
    metrics = COCOMetrics(dataset(), annotations())
    values = fit(model, metrics, epochs=3, steps_per_epoch=1)["val_box_ap"]
    assert values[0] > values[1] > values[2]
    moved = annotations(shift=float(model.layers[-1].shift.numpy()))
    exact = COCOMetrics(dataset(), moved).score(model)
    assert exact["box_ap"] == pytest.approx(1.0)
    assert "mask_ap" not in exact


def test_stock_callbacks_use_the_figures(tmp_path):
    log = tmp_path / "log.csv"
    best = tmp_path / "best.weights.h5"
    stop = keras.callbacks.EarlyStopping("val_box_ap", mode="max", patience=1)
    history = fit(
        detector(masks=False, learning_rate=0.2),
        COCOMetrics(dataset(), annotations()),
        keras.callbacks.CSVLogger(log),
        keras.callbacks.ModelCheckpoint(
            best, "val_box_ap", mode="max", save_best_only=True, save_weights_only=True
        ),
        stop,
        epochs=9,
        steps_per_epoch=1,
    )
    assert len(history["val_box_ap"]) == 2
    assert stop.stopped_epoch == 1
    assert best.is_file()
    with log.open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["val_box_ap"]) == pytest.approx(history["val_box_ap"][0])


@pytest.mark.parametrize(
    "early",
    [
        keras.callbacks.EarlyStopping("val_mask_ap50", mode="max"),
        keras.callbacks.ModelCheckpoint("w.keras", "val_box_ap", mode="max"),
        keras.callbacks.ReduceLROnPlateau("val_box_ap/cat", mode="max"),
    ],
)
def test_a_wrong_order_is_an_error_before_training(early):
    name = type(early).__name__
    metrics = COCOMetrics(dataset(), annotations())
    with pytest.raises(
        ValueError, match=f"{name} monitors 'val_.* Put COCOMetrics before"
    ):
        fit(detector(), early, metrics)
    fit(detector(), keras.callbacks.EarlyStopping("loss"), metrics)


def test_the_model_is_traced_once():
    model = detector(masks=False, learning_rate=0.1, run_eagerly=False)
    traces = []
    call = model.predict_step
    model.predict_step = lambda data: (traces.append(data), call(data))[1]
    # Three batches of 2, 2 and 1 images in each of three epochs.
    fit(model, COCOMetrics(dataset(), annotations()), epochs=3)
    assert len(traces) == 1


@pytest.mark.parametrize("swap_on_epoch", [False, True])
@pytest.mark.parametrize("swap_first", [False, True])
def test_averaged_weights_are_scored_where_validation_uses_them(
    swap_on_epoch, swap_first
):
    def run(*callbacks):
        model = detector(masks=False, learning_rate=0.2, use_ema=True, ema_momentum=0.5)
        history = fit(model, *callbacks, epochs=2, validation_data=dataset())
        return history, float(model.layers[-1].shift.numpy())

    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)
    plain = COCOMetrics(dataset(), annotations())
    averaged = COCOMetrics(dataset(), annotations())
    fast, _ = run(plain)
    both = [swap, averaged] if swap_first else [averaged, swap]
    slow, shift = run(*both)
    _, reference = run(keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch))
    # The averages move more slowly, so the boxes are still nearer to their place.
    assert slow["val_box_ap"][0] > fast["val_box_ap"][0]
    assert slow["val_loss"] != fast["val_loss"]
    assert shift == pytest.approx(reference)  # scoring leaves no trace in the weights
    # The score is that of the weights that gave the loss of the validation.
    box_shift = 3 - np.sqrt(slow["val_loss"][0])
    moved = COCOMetrics(dataset(), annotations())
    model = detector(masks=False)
    model.layers[-1].shift.assign(box_shift)
    assert slow["val_box_ap"][0] == pytest.approx(moved.score(model)["box_ap"])


def test_every_second_epoch():
    metrics = COCOMetrics(dataset(), annotations(), every=2)
    values = fit(detector(masks=False), metrics, epochs=5)["val_box_ap"]
    assert [bool(np.isnan(value)) for value in values] == [
        False,
        False,
        True,
        False,
        False,
    ]
    best = keras.callbacks.EarlyStopping("val_box_ap", mode="max", patience=4)
    fit(detector(masks=False), COCOMetrics(dataset(), annotations(), every=3), best)
    assert best.best == pytest.approx(1.0)


def test_per_class_figures():
    history = fit(detector(), COCOMetrics(dataset(), annotations(), per_class=True))
    names = {name for name in history if "/" in name}
    assert names == {f"val_{k}_ap/{n}" for k in ("box", "mask") for n in ("cat", "dog")}


def test_masks_can_be_left_out_and_the_prefix_chosen():
    history = fit(
        detector(), COCOMetrics(dataset(), annotations(), prefix="test_", masks=False)
    )
    assert "test_box_ap" in history
    assert not any("mask" in name for name in history)


def test_a_part_of_the_file_is_scored_and_said(caplog):
    metrics = COCOMetrics(dataset(), annotations(count=9))
    with caplog.at_level(logging.INFO):
        history = fit(detector(), metrics, epochs=2)
    assert history["val_box_ap"][0] == pytest.approx(1.0)
    ours = [record for record in caplog.records if record.name.startswith("kvision")]
    assert [record.getMessage() for record in ours] == [
        "COCOMetrics scores 5 of the 9 images of annotations"
    ]


def test_a_line_can_be_printed(capsys):
    COCOMetrics(dataset(), annotations(), verbose=1).score(detector())
    assert "box AP 1.000 (50: 1.000), mask AP" in capsys.readouterr().out


def test_two_replicas_score_as_one():
    # Logical devices have to be there before TensorFlow starts.
    script = f"""
import runpy, tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
config = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [config, config])
here = runpy.run_path({__file__!r})
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = here["detector"](run_eagerly=False)
metrics = here["COCOMetrics"](here["dataset"](), here["annotations"]())
print("scores", metrics.score(model)["box_ap"], len(metrics.results))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert f"scores 1.0 {2 * IMAGES}" in done.stdout, done.stderr[-2000:]


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match=r"every must be 1 or more. Received: 0"):
        COCOMetrics(dataset(), annotations(), every=0)
    with pytest.raises(ValueError, match=r"The dataset never ends.*without repeat"):
        COCOMetrics(dataset().repeat(), annotations())
    with pytest.raises(ValueError, match=r"Image 10[0-4] came twice"):
        COCOMetrics(dataset().repeat(2), annotations()).score(detector())
    with pytest.raises(ValueError, match=r"no images with the ids \[104"):
        COCOMetrics(dataset(), annotations(count=4)).score(detector())
    with pytest.raises(ValueError, match=r"no category named \['dog'\]"):
        fit(
            detector(), COCOMetrics(dataset(), annotations(classes=("cat", "DOG", "x")))
        )
    with pytest.raises(ValueError, match="no images to score"):
        COCOMetrics(dataset().take(0), annotations()).score(detector())
    bare = dataset().map(
        lambda images, targets: (images, {"scales": targets["scales"]})
    )
    with pytest.raises(ValueError, match=r"needs \['image_ids', 'original_sizes'\]"):
        COCOMetrics(bare, annotations()).score(detector())


class Oracle:
    """Puts out the ground truth of a dataset, batch for batch."""

    def __init__(self, dataset):
        self.class_names = dataset.class_names
        self.batches = dataset.as_numpy_iterator()

    def predict_on_batch(self, images):
        _, targets = next(self.batches)
        outputs = {
            "boxes": targets["gt_boxes"],
            "labels": targets["gt_labels"],
            "scores": (targets["gt_labels"] >= 0).astype(np.float32),
            "masks": targets["gt_masks"] / np.float32(255),
        }
        filling = len(images) - len(targets["gt_boxes"])
        return {
            key: np.pad(value, [(0, filling)] + [(0, 0)] * (value.ndim - 1))
            for key, value in outputs.items()
        }


def test_ground_truth_survives_the_way_through_the_dataset(shared_data):
    """Loading, resizing, padding, mask crops, and the way back to the photos."""
    folder = shared_data / "coco_mini"
    content = json.loads((folder / "annotations/instances_val2017.json").read_text())
    content["images"] = content["images"][:16]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    data = kv.data.coco(
        content, folder / "val2017", image_size=(400, 480), batch_size=5, cache=True
    )
    metrics = COCOMetrics(data, content, max_detections=data.max_instances)
    scores = metrics.score(Oracle(data))
    assert len(metrics.results) > 80
    assert scores["box_ap"] > 0.9999
    assert scores["mask_ap"] > 0.998


def test_it_is_where_the_readme_says():
    assert kv.callbacks.COCOMetrics is COCOMetrics
