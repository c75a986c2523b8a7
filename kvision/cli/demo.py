"""`kvision demo`: the main job on generated shapes, from nothing to exported models."""

import json
import time
from pathlib import Path
from typing import Any

import keras
from rich.console import Console
from rich.table import Table

import kvision as kv
from kvision.data import HorizontalFlip, VerticalFlip, shapes
from kvision.predict import detect, from_targets
from kvision.train.callbacks import COCOMetrics
from kvision.train.precision import fastest_policy
from kvision.viz import mosaic, save_picture, side_by_side

__all__ = ["demo_model", "run"]

_SIZE = (128, 128)
_TRAIN_IMAGES, _TEST_IMAGES, _BATCH, _EPOCHS = 2080, 200, 8, 5
_LEARNING_RATE = 3e-3
_PICTURES = 6


def run(output: Path, seed: int) -> dict[str, Any]:
    """Train a small Mask R-CNN, score, draw and export it.

    Args:
        output: folder for pictures and models.
        seed: of the shapes, the weights and the order.

    Returns:
        `seconds`, `box_ap`, `box_ap50`, `mask_ap`, `mask_ap50`, `parity` and `files`.
    """
    start = time.monotonic()
    console = Console()
    keras.utils.set_random_seed(seed)
    output.mkdir(parents=True, exist_ok=True)

    train = shapes(
        num_images=_TRAIN_IMAGES,
        image_size=_SIZE,
        batch_size=_BATCH,
        seed=seed,
        augment=[HorizontalFlip(), VerticalFlip()],
        cache=True,
    )
    # Another seed, so images the model has never seen.
    test = shapes(
        num_images=_TEST_IMAGES, image_size=_SIZE, batch_size=_BATCH, seed=seed + 1
    )
    policy = fastest_policy()
    model = demo_model(train.class_names, policy)
    _compile(model, _EPOCHS * (_TRAIN_IMAGES // _BATCH))
    console.print(
        f"Training on {_TRAIN_IMAGES} images of {_SIZE[0]} x {_SIZE[1]} pixels in "
        f"{policy}, {model.count_params():,} parameters"
    )
    bar, line_per_epoch = 1, 2
    verbose = bar if console.is_terminal else line_per_epoch
    model.fit(train, epochs=_EPOCHS, verbose=verbose, shuffle=False)

    metrics = COCOMetrics(test, test.annotations)
    scores = metrics.score(model)
    files = {
        "picture": _draw(model, test, output / "detections.png"),
        "model": output / "model.keras",
        "saved_model": output / "saved_model" / "1",
        "tflite": output / "model.tflite",
    }
    model.save(files["model"])
    photos = next(iter(test))[0].numpy()
    parity = {
        "saved_model": kv.export.saved_model(
            model, files["saved_model"], images=photos, overwrite=True
        ),
        "tflite": kv.export.tflite(model, files["tflite"], images=photos),
    }
    result = {
        "seconds": round(time.monotonic() - start, 1),
        **{
            name: scores[name]
            for name in ("box_ap", "box_ap50", "mask_ap", "mask_ap50")
        },
        "parity": {name: report.to_dict() for name, report in parity.items()},
        "files": {name: str(path) for name, path in files.items()},
    }
    (output / "result.json").write_text(json.dumps(result, indent=2))
    _summarise(console, result)
    return result


def demo_model(class_names: list[str], policy: str) -> keras.Model:
    """Build a Mask R-CNN that learns shapes from nothing in a few minutes.

    Args:
        class_names: names of the classes.
        policy: dtype policy.

    Returns:
        The detector: a backbone of its own and narrow heads.
    """
    return kv.models.mask_rcnn(
        _small_backbone(policy),
        class_names=class_names,
        image_size=_SIZE,
        normalization=(127.5, 64.0),
        anchor_sizes=(12, 24, 40, 64, 96),
        pyramid_channels=64,
        rpn_pre_nms_top_k=200,
        rpn_post_nms_top_k=100,
        rpn_train_pre_nms_top_k=300,
        rpn_train_post_nms_top_k=200,
        rpn_num_samples=128,
        roi_canonical_size=112,
        box_hidden_dim=256,
        box_num_samples=64,
        mask_channels=64,
        mask_num_convs=2,
        max_detections=50,
        dtype=policy,
    )


def _small_backbone(policy: str, width: int = 32) -> keras.Model:
    """Build a residual network of five strides, a block each."""

    def convolution(x: Any, filters: int, strides: int = 1, gamma: str = "ones") -> Any:
        x = keras.layers.Conv2D(
            filters,
            3,
            strides,
            "same",
            use_bias=False,
            kernel_initializer="he_normal",
            dtype=policy,
        )(x)
        return keras.layers.BatchNormalization(
            momentum=0.9, gamma_initializer=gamma, dtype=policy
        )(x)

    def relu(x: Any) -> Any:
        return keras.layers.ReLU(dtype=policy)(x)

    images = keras.Input((*_SIZE, 3))
    x = relu(convolution(images, width // 2, strides=2))
    features = {}
    for level, filters in ((2, width), (3, 2 * width), (4, 4 * width), (5, 4 * width)):
        x = relu(convolution(x, filters, strides=2))
        # A branch that begins as zero leaves the block an identity at first.
        branch = convolution(relu(convolution(x, filters)), filters, gamma="zeros")
        x = relu(keras.layers.Add(dtype=policy)([x, branch]))
        features[f"C{level}"] = x
    return keras.Model(images, features, name="small_backbone")


def _compile(model: keras.Model, steps: int) -> None:
    warmup = min(100, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.05 * _LEARNING_RATE,
        steps - warmup,
        alpha=0.01,
        warmup_target=_LEARNING_RATE,
        warmup_steps=warmup,
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=1e-4, global_clipnorm=10.0)
    )


def _draw(model: keras.Model, dataset: Any, path: Path) -> Path:
    """Draw ground truth beside detections for some images."""
    images, targets = next(iter(dataset))
    images = images.numpy()[:_PICTURES]
    targets = {name: value.numpy() for name, value in targets.items()}
    pairs = []
    for row, found in enumerate(detect(model, images)):
        truth = from_targets(images, targets, row, model.class_names)
        pairs.append(side_by_side(truth.draw(show_scores=False), found.draw()))
    save_picture(mosaic(pairs, columns=2), path)
    return path


def _summarise(console: Console, result: dict[str, Any]) -> None:
    table = Table(title=f"Done in {result['seconds']:.0f} s", show_header=False)
    for kind in ("box", "mask"):
        table.add_row(
            f"{kind} AP, AP50 on {_TEST_IMAGES} unseen images",
            f"{result[f'{kind}_ap']:.3f}, {result[f'{kind}_ap50']:.3f}",
        )
    for name, path in result["files"].items():
        table.add_row(name.replace("_", " "), path)
    console.print(table)
    console.print(
        f"Next: kvision predict {result['files']['model']} YOUR_IMAGES, or kvision "
        "train detect YOUR_DATA"
    )
