"""Recipes of detectors, and the transforms that they name."""

import dataclasses
import inspect
from typing import Any, ClassVar, Literal

from kvision.data import transforms
from kvision.models.rcnn import build_rcnn
from kvision.train.augmentation import as_plain, make_transform
from kvision.train.recipe import Recipe
from kvision.train.settings import setting

__all__ = ["DetectRecipe", "make_transforms"]

# Chosen for batches of 4; a larger batch wants more.
_LEARNING_RATES = {"sgd": 0.01, "adamw": 2e-4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectRecipe(Recipe):
    """How a Faster or Mask R-CNN is trained: the settings of `Recipe`, and these.

    Args:
        data: folder with COCO json files and images, or one json file.
        images: image folder of a json file; by default found beside it.
        val: json file to validate on.
        val_images: image folder of `val`; by default that of `data`.

        model: "mask_rcnn" or "faster_rcnn".
        backbone: such as "mobilenet_v2" or "resnet50".
        weights: of the backbone: "imagenet", a path or none.
        resize: "pad" keeps the aspect ratio, "stretch" does not.
        frozen_stages: stages of the backbone that are not trained; by default 2 with
            weights and 0 without.
        freeze_batch_norm: whether batch normalisation uses constants; by default with
            weights.

        optimizer: "sgd" or "adamw".
        learning_rate: its peak; by default 0.01 for SGD and 0.0002 for AdamW.

        augment: true for the default set, false for none, or a list of names in
            `kvision.data.transforms`, with arguments as [HorizontalFlip,
            {LargeScaleJitter: {low: 0.8, high: 1.25}}].
        max_instances: objects an image has room for; by default the largest count.
        mask_size: cells along each side of a mask in training.

        validation_loss: whether validation also computes the losses.
        monitor: by default "val_mask_ap" or "val_box_ap", and "loss" without
            validation.
    """

    task: ClassVar[str] = "detect"
    _paths: ClassVar[tuple[str, ...]] = ("data", "images", "val", "val_images")

    images: str | None = None
    val_images: str | None = None

    model: Literal["mask_rcnn", "faster_rcnn"] = "mask_rcnn"
    backbone: str = "mobilenet_v2"
    weights: str | None = "imagenet"
    image_size: tuple[int, int] = setting((512, 512), least=64)
    resize: Literal["pad", "stretch"] = "pad"
    frozen_stages: int | None = setting(None, least=0, most=5)
    freeze_batch_norm: bool | None = None

    optimizer: Literal["sgd", "adamw"] = "sgd"

    augment: bool | list[Any] = True
    max_instances: int | None = setting(None, least=1)
    mask_size: int = setting(56, least=1)

    validation_loss: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.augment, bool):
            plain = [as_plain(item) for item in self.augment]
            object.__setattr__(self, "augment", plain)
        make_transforms(self.augment)

    @classmethod
    def model_arguments(cls, model: str) -> list[str]:
        """Return the arguments of a builder that are no settings of their own.

        Args:
            model: its name; all have the same.

        Returns:
            The names.
        """
        names = inspect.signature(build_rcnn).parameters
        settings = {field.name for field in dataclasses.fields(cls)}
        return sorted(set(names) - settings - {"masks", "name"})

    def _defaults(self, has_validation: bool) -> dict[str, Any]:
        score = "val_mask_ap" if self.model == "mask_rcnn" else "val_box_ap"
        return {
            "learning_rate": _LEARNING_RATES[self.optimizer],
            "monitor": score if has_validation else "loss",
            "frozen_stages": 2 if self.weights else 0,
            "freeze_batch_norm": self.weights is not None,
        }

    @classmethod
    def _needs_data(cls) -> str:
        return "A recipe needs data: a folder or a COCO json file"


def make_transforms(augment: bool | list[Any]) -> bool | list[Any]:
    """Make the transforms of `kvision.data` that a recipe names.

    Args:
        augment: true, false, or a list of names and of {name: {argument: value}}.

    Returns:
        true, false, or a list of transforms.

    Raises:
        ValueError: for an unknown name or argument.
    """
    if isinstance(augment, bool):
        return augment
    known = {n: getattr(transforms, n) for n in transforms.__all__ if n[0].isupper()}
    return [make_transform(item, known) for item in augment]
