"""From the data a recipe names to datasets, from any step of any epoch on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvision.data.coco import coco, find_coco, split_coco
from kvision.train.detect_recipe import DetectRecipe, make_transforms

__all__ = ["Sources", "find_sources"]


@dataclass(frozen=True)
class Sources:
    """Where the images and objects of a run come from.

    Attributes:
        recipe: what decides how they are prepared.
        train: annotations (a path, or the content of a file) and image folder.
        val: the same to validate on, or None.
    """

    recipe: DetectRecipe
    train: tuple[Any, Path]
    val: tuple[Any, Path] | None

    def training(self, epoch: int = 0, step: int = 0) -> Any:
        """Make the endless training set from a step of an epoch on.

        What comes is a pure function of seed, epoch and step.
        """
        recipe = self.recipe
        return self._dataset(
            self.train,
            class_names=recipe.class_names,
            augment=make_transforms(recipe.augment),
            max_instances=recipe.max_instances,
            cache=recipe.cache,
            seed=recipe.seed,
            first_epoch=epoch,
            first_step=step,
        )

    def validation(self, class_names: list[str]) -> Any:
        """Make the validation set: each image once, as it is; None without one."""
        if self.val is None:
            return None
        return self._dataset(self.val, class_names=class_names, cache=self.recipe.cache)

    def _dataset(self, source: tuple[Any, Path], **settings: Any) -> Any:
        recipe = self.recipe
        return coco(
            *source,
            image_size=recipe.image_size,
            batch_size=recipe.batch_size,
            resize=recipe.resize,
            masks=recipe.model == "mask_rcnn",
            mask_size=recipe.mask_size,
            on_error=recipe.on_error,
            **settings,
        )


def find_sources(recipe: DetectRecipe) -> Sources:
    """Find the files of a recipe: named, in a folder, or split from one json.

    Args:
        recipe: the recipe.

    Returns:
        The sources.

    Raises:
        ValueError: there is no training data, or more than one could be meant.
    """
    train = _named(recipe.data, recipe.images, "train")
    if recipe.val is not None:
        default = recipe.val_images or recipe.images
        return Sources(recipe, train, _named(recipe.val, default, "val"))
    beside = _in_folder(Path(recipe.data)) if Path(recipe.data).is_dir() else {}
    if "val" in beside:
        return Sources(recipe, train, beside["val"])
    if not recipe.val_fraction:
        return Sources(recipe, train, None)
    json_file, images = train
    part = recipe.val_fraction, recipe.seed
    return Sources(
        recipe,
        (split_coco(json_file, part[0], "training", part[1]), images),
        (split_coco(json_file, part[0], "validation", part[1]), images),
    )


def _named(data: str, images: str | None, wanted: str) -> tuple[Path, Path]:
    """Find the set that a folder or a json file stands for."""
    path = Path(data)
    if not path.exists():
        raise ValueError(f"No such file or folder: {data}")
    if path.is_file():
        return path, Path(images) if images else find_coco(path)[0][2]
    sets = _in_folder(path)
    if wanted in sets:
        return sets[wanted]
    others = {name: one for name, one in sets.items() if name not in ("val", "test")}
    if len(others) == 1:
        return next(iter(others.values()))
    raise ValueError(
        f"{data} has no {wanted} set, but {', '.join(sets)}: name the json file to use"
    )


def _in_folder(folder: Path) -> dict[str, tuple[Path, Path]]:
    return {name: (file, images) for name, file, images in find_coco(folder)}
