"""From the data a recipe names to datasets of a classifier, from any step on."""

import csv
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kvision.data import arrays, find_splits, folders
from kvision.data.order import CommonOptions, Order
from kvision.train.classify_recipe import ClassifyRecipe, make_transforms, preparation

__all__ = ["Sources", "find_sources", "identity", "image_ids"]

_ATTRIBUTES = (
    "class_names",
    "image_names",
    "class_counts",
    "num_images",
    "steps_per_epoch",
    "image_size",
)


@dataclass(frozen=True)
class Sources:
    """Where the images of a run come from.

    Attributes:
        recipe: what decides how they are prepared.
        train: path, and arguments that choose the training images of it.
        val: the same to validate on, or None.
    """

    recipe: ClassifyRecipe
    train: tuple[Path, dict[str, Any]]
    val: tuple[Path, dict[str, Any]] | None

    def training(self, epoch: int = 0, step: int = 0) -> Any:
        """Make the endless training set from a step of an epoch on.

        What comes is a pure function of seed, epoch and step: images and labels (B, K).
        """
        recipe = self.recipe
        dataset = self._dataset(
            self.train,
            class_names=recipe.class_names,
            augment=make_transforms(recipe),
            label_smoothing=recipe.label_smoothing,
            repeats=recipe.repeats,
            seed=recipe.seed,
            first_epoch=epoch,
            first_step=step,
        )
        return _with_shares(dataset)

    def validation(self, class_names: list[str]) -> Any:
        """Make the validation set: each image once, as it is; None without one."""
        if self.val is None:
            return None
        return self._dataset(self.val, class_names=class_names)

    def _dataset(self, source: tuple[Path, dict[str, Any]], **settings: Any) -> Any:
        recipe = self.recipe
        path, choice = source
        settings |= {
            "image_size": recipe.image_size,
            "batch_size": recipe.batch_size,
            **preparation(recipe),
            **choice,
        }
        if path.suffix == ".npz":
            return arrays(path, channels=recipe.num_channels, **settings)
        if path.is_file() and recipe.images is not None:
            settings["images"] = recipe.images
        return folders(path, cache=recipe.cache, on_error=recipe.on_error, **settings)


def find_sources(recipe: ClassifyRecipe) -> Sources:
    """Find the data of a recipe: named, beside each other, or split.

    Args:
        recipe: the recipe.

    Returns:
        The sources.

    Raises:
        ValueError: there is no such file or folder.
    """
    path = Path(recipe.data)
    if not path.exists():
        raise ValueError(f"No such file or folder: {recipe.data}")
    sets = _sets(path)
    train: dict[str, Any] = {"split": "train"} if "train" in sets else {}
    if recipe.val is not None:
        other = Path(recipe.val)
        if not other.exists():
            raise ValueError(f"No such file or folder: {recipe.val}")
        choice = {"split": "val"} if "val" in _sets(other) else {}
        return Sources(recipe, (path, train), (other, choice))
    if "val" in sets:
        return Sources(recipe, (path, train), (path, {"split": "val"}))
    if not recipe.val_fraction:
        return Sources(recipe, (path, train), None)
    part = {"validation_split": recipe.val_fraction, "split_seed": recipe.seed}
    return Sources(
        recipe,
        (path, {**train, **part, "subset": "training"}),
        (path, {**train, **part, "subset": "validation"}),
    )


def image_ids(sources: Sources, epoch: int, step: int) -> list[str]:
    """Name the images of a training batch.

    Args:
        sources: where the images are.
        epoch: counted from 0.
        step: of the epoch, counted from 0.

    Returns:
        File names, or numbers in an array.
    """
    recipe = sources.recipe
    names = sources.training().image_names
    options = CommonOptions(
        image_size=recipe.image_size,
        batch_size=recipe.batch_size,
        shuffle=True,
        seed=recipe.seed,
        first_epoch=epoch,
        first_step=step,
    )
    order = Order(len(names), options, recipe.repeats).dataset()
    return [names[int(index)] for _, _, index in order.take(recipe.batch_size)]


def identity(dataset: Any) -> dict[str, Any]:
    """Describe training data so that other data is noticed.

    Args:
        dataset: the training set.

    Returns:
        Plain values.
    """
    text = "\n".join(dataset.image_names)
    return {
        "class_names": list(dataset.class_names),
        "num_images": dataset.num_images,
        "images": zlib.crc32(text.encode()),
    }


def _with_shares(dataset: Any) -> Any:
    """Make rows of shares of labels that are numbers: one loss serves both."""
    import tensorflow as tf

    if dataset.element_spec[1].shape.rank == 2:
        return dataset
    number = len(dataset.class_names)
    shares = dataset.map(lambda images, labels: (images, tf.one_hot(labels, number)))
    for name in _ATTRIBUTES:
        setattr(shares, name, getattr(dataset, name))
    return shares


def _sets(path: Path) -> set[str]:
    """Return the sets of a folder, a table or an .npz file, as far as it has any."""
    if path.is_dir():
        return set(find_splits(path))
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as content:
            names = content.files
        return {n.removesuffix("_images") for n in names if n.endswith("_images")}
    with path.open(newline="", encoding="utf-8-sig") as file:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        rows = list(csv.DictReader(file, delimiter=delimiter))
    column = next((c for c in rows[0] if c.lower() == "split"), None) if rows else None
    return {row[column].lower() for row in rows} if column else set()
