"""The task of classifying: model, scores and pictures of a run."""

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from kvision.evaluation.classification import confusion_counts, probabilities
from kvision.train.build import has_accelerator, make_schedule
from kvision.train.class_scores import ClassScores, predictions
from kvision.train.class_scores import figure_names as class_figure_names
from kvision.train.classify_recipe import ClassifyRecipe, builder_of, preparation
from kvision.train.classify_sources import Sources, find_sources, identity, image_ids
from kvision.train.distillation import distill, student_of
from kvision.train.optimizers import make_optimizer
from kvision.train.pretrained import load_model_file, load_pretrained
from kvision.viz import mosaic, plot_confusion_matrix, save_picture

__all__ = [
    "build_model",
    "draw_training",
    "draw_validation",
    "evaluates_losses",
    "figure_names",
    "find_sources",
    "identity",
    "image_ids",
    "make_scorer",
    "product_of",
]

_log = logging.getLogger("kvision.train")

_TRAINING_TILES = 16
_TILE = 224  # pixels
_MOST_CLASSES = 30  # of a confusion matrix that can be read


def build_model(
    recipe: ClassifyRecipe, train_set: Any, load_weights: bool = True
) -> keras.Model:
    """Build and compile the classifier of a recipe, its teacher beside it.

    Args:
        recipe: the recipe, resolved.
        train_set: the training set.
        load_weights: whether to load `weights`; not needed where those of a checkpoint
            follow.

    Returns:
        The model, its optimizer and metrics built.
    """
    channels = train_set.element_spec[0].shape[-1]
    class_names = list(train_set.class_names)
    model = _build(recipe, channels, class_names=class_names)
    if load_weights and recipe.weights is not None:
        load_pretrained(
            model,
            recipe.weights,
            lambda number: _build(recipe, channels, num_classes=number),
        )
    jit_compile = recipe.jit_compile
    if jit_compile == "auto":
        jit_compile = has_accelerator()
    if recipe.teacher is not None:
        # It is scored alone, without `compile`.
        model.jit_compile = jit_compile
        model = _with_teacher(model, recipe)
    optimizer = make_optimizer(
        recipe.optimizer,
        make_schedule(recipe, train_set.steps_per_epoch),
        model.trainable_variables,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
        clipnorm=recipe.clipnorm,
        ema=recipe.ema,
        accumulate=recipe.accumulate,
    )
    if recipe.dtype == "mixed_float16":
        # Keras looks at the policy of the model, which is that of its layers here.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(model.trainable_variables)
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=_metrics(len(class_names)),
        jit_compile=jit_compile,
        auto_scale_loss=False,
    )
    _build_metrics(model)
    return model


def _build(recipe: ClassifyRecipe, channels: int, **classes: Any) -> keras.Model:
    arguments: dict[str, Any] = {
        "image_size": recipe.image_size,
        "dtype": recipe.dtype,
        **preparation(recipe),
        **classes,
        **recipe.arguments,
    }
    optional = {
        "variant": recipe.variant,
        "drop_path": recipe.drop_path,
        "recompute": recipe.recompute or None,
        "num_channels": None if channels == 3 else channels,
    }
    arguments |= {name: value for name, value in optional.items() if value is not None}
    try:
        return builder_of(recipe.model)(**arguments)
    except TypeError as error:
        raise ValueError(f"{recipe.model}: {error}") from error


def _with_teacher(student: keras.Model, recipe: ClassifyRecipe) -> keras.Model:
    return distill(
        student,
        load_model_file(str(recipe.teacher)),
        hard=recipe.distillation == "hard",
        temperature=recipe.temperature,
        weight=recipe.distillation_weight,
        token_weight=recipe.token_weight,
    )


def _metrics(num_classes: int) -> list[keras.metrics.Metric]:
    metrics = [keras.metrics.CategoricalAccuracy("accuracy")]
    if num_classes > 5:
        metrics.append(keras.metrics.TopKCategoricalAccuracy(5, "top5_accuracy"))
    return metrics


def _build_metrics(model: keras.Model) -> None:
    """Create the metrics' variables, as Keras does at the first step only."""
    labels = np.zeros((1, model.output_shape[-1]), np.float32)
    model.compute_metrics(None, labels, keras.ops.zeros(labels.shape), None)
    model.reset_metrics()


def evaluates_losses(recipe: ClassifyRecipe) -> bool:
    """Say whether a validation runs `Model.evaluate`: the scorer computes the loss."""
    return False


def product_of(model: keras.Model) -> keras.Model:
    """Return what is scored, drawn and saved: the model without its teacher."""
    return student_of(model)


def figure_names(recipe: ClassifyRecipe, model: keras.Model) -> list[str]:
    """Return the figures that a validation adds to an epoch's logs."""
    return class_figure_names(model.output_shape[-1])


def make_scorer(
    recipe: ClassifyRecipe, sources: Sources, model: keras.Model, dataset: Any
) -> ClassScores | None:
    """Make what scores the model, or None without data for it."""
    return None if dataset is None else ClassScores(dataset, list(dataset.class_names))


def draw_training(dataset: Any, class_names: list[str], path: Path) -> None:
    """Draw the first training images as the model sees them, with their classes.

    Args:
        dataset: the training set.
        class_names: names of the classes.
        path: the picture to write.
    """
    tiles, captions = [], []
    for images, labels in dataset:
        for image, label in zip(np.asarray(images), np.asarray(labels), strict=True):
            tiles.append(_tile(image))
            captions.append(_mixture(label, class_names))
        if len(tiles) >= _TRAINING_TILES:
            break
    save_picture(
        mosaic(tiles[:_TRAINING_TILES], captions=captions[:_TRAINING_TILES]), path
    )


def draw_validation(
    model: keras.Model, dataset: Any, folder: Path, number: int
) -> None:
    """Draw images with their classes and those found, and which is taken for which.

    Args:
        model: a classifier.
        dataset: the validation set.
        folder: where to write `images.jpg` and `confusion.png`.
        number: how many images, the first of the set.
    """
    logits, labels = predictions(model, dataset)
    names = list(dataset.class_names)
    scores = probabilities(logits[:number])
    captions = [
        _verdict(names[label], names[int(row.argmax())], row.max())
        for label, row in zip(labels, scores, strict=False)
    ]
    tiles = []
    for images, _ in dataset:
        tiles += [_tile(image) for image in np.asarray(images)]
        if len(tiles) >= number:
            break
    save_picture(mosaic(tiles[:number], captions=captions), folder / "images.jpg")
    if len(names) <= _MOST_CLASSES:
        counts = confusion_counts(logits.argmax(axis=1), labels, len(names))
        try:
            plot_confusion_matrix(counts, names, folder / "confusion.png")
        except ImportError as error:
            _log.warning("No confusion.png: %s", error)


def _tile(image: np.ndarray) -> Image.Image:
    """Bring an image to the size of a tile, each pixel a square where it is small."""
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    scale = _TILE / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    return picture.resize((size[0], size[1]), method)


def _mixture(label: np.ndarray, class_names: list[str]) -> str:
    """Write a label: a name, or the largest shares of a mixed one."""
    if label.ndim == 0:
        return class_names[int(label)]
    best = np.argsort(-label)[:2]
    if label[best[0]] > 0.95 or len(best) == 1:
        return class_names[best[0]]
    # Smoothing alone makes no mixture.
    share = [(class_names[i], label[i]) for i in best if label[i] > 1.5 * label.min()]
    return " + ".join(f"{name} {value:.2f}" for name, value in share)


def _verdict(truth: str, found: str, score: float) -> str:
    if truth == found:
        return f"{truth} {score:.2f}"
    return f"{truth}, found {found} {score:.2f}"
