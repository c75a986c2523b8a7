"""Recipes of classifiers."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import keras

from kvision import data, models
from kvision.data.mixing import Mix
from kvision.train.augmentation import as_plain, make_transform
from kvision.train.recipe import Recipe
from kvision.train.settings import setting, unknown

__all__ = ["ClassifyRecipe", "builder_of", "make_transforms", "preparation"]

# Peak of each optimizer at a number of images a change of the weights: DeiT's, DeiT
# III's, and that of the Vision Transformer's fine-tuning.
_LEARNING_RATES = {"adamw": (5e-4, 512), "lamb": (3e-3, 2048), "sgd": (0.03, 512)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifyRecipe(Recipe):
    """How a classifier is trained: the settings of `Recipe`, and these.

    Args:
        data: folder with a folder of images for each class (or `train/` and `val/` of
            them), a CSV file of paths and classes, or an `.npz` file of arrays.
        images: image folder of a CSV file; by default the file's own.
        val: folder, CSV or `.npz` file to validate on.

        model: name of a builder in `kvision.models`, such as "vit", "deit" or
            "twins_svt".
        variant: its variant, such as "S/16"; by default the builder's.
        weights: `.keras`, `.weights.h5` or `.safetensors` file of a model of the same
            builder to begin with, or of a "deit" for "dynamic_vit". Its head is left
            out where the classes differ, and its positions are resampled where the
            image size does.
        drop_path: share of samples that skip the branches of the last block; the
            builder's default where none.
        recompute: gradient checkpointing of every block: less memory, more time, the
            same numbers.

        optimizer: "adamw", "lamb" or "sgd".
        learning_rate: its peak. By default 0.0005 for AdamW with 512 images a change of
            the weights (`batch_size * accumulate`), 0.003 for LAMB with 2048, both
            growing with the square root of the images, and 0.03 for SGD with 512,
            growing with the images.
        layer_decay: factor from each layer's learning rate to that of the layer before,
            such as 0.75 in fine-tuning; none gives all the same.

        resize: how photos are brought to the input: "crop", "stretch" or "pad"; by
            default "stretch" for `.npz` files and else "crop". The model keeps it.
        crop_fraction: share of the shorter side that "crop" keeps.
        interpolation: "bicubic" or "bilinear".
        num_channels: 3, or 1 for grey `.npz` files.

        augment: false for none, a set of `kvision.data.named_transforms` ("light",
            which true stands for, "deit" or "three", the last two with mixing), or a
            list of names in `kvision.data`, with arguments as [HorizontalFlip,
            {RandomResizedCrop: {scale: [0.3, 1.0]}}].
        mixup: beside `augment`, alpha of MixUp, such as 0.8; 0 for none.
        cutmix: alpha of CutMix, such as 1.0; 0 for none. With both, each batch
            gets one of them.
        label_smoothing: share of each label that is spread over all classes.
        random_erasing: share of the images in which a rectangle is erased.
        repeats: times an image comes in a row, augmented anew (repeated
            augmentation); an epoch then sees one in `repeats` of the images.

        teacher: `.keras` file of a classifier of the same classes to learn from.
        distillation: "hard" takes the teacher's best class for a label, "soft" its
            probabilities. A model with a head named "head_dist" learns them there.
        temperature: by which logits are divided in soft distillation.
        distillation_weight: of the teacher's loss, that of the labels being 1.
        token_weight: of the difference of kept patches from the teacher's, for
            "dynamic_vit"; see `kvision.train.distill`.

        monitor: by default "val_accuracy", and "loss" without validation.
    """

    task: ClassVar[str] = "classify"
    _paths: ClassVar[tuple[str, ...]] = ("data", "images", "val", "weights", "teacher")

    images: str | None = None

    model: str = "vit"
    variant: str | None = None
    image_size: tuple[int, int] = setting((224, 224), least=1)
    drop_path: float | None = setting(None, least=0, below=1)
    recompute: bool = False

    batch_size: int = setting(64, least=1)
    optimizer: Literal["adamw", "lamb", "sgd"] = "adamw"
    weight_decay: float = setting(0.05, least=0)
    layer_decay: float | None = setting(None, above=0, most=1)

    resize: Literal["crop", "stretch", "pad"] | None = None
    crop_fraction: float = setting(0.9, above=0, most=1)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    num_channels: Literal[1, 3] = 3

    augment: bool | Literal["light", "deit", "three"] | list[Any] = True
    mixup: float = setting(0.0, least=0)
    cutmix: float = setting(0.0, least=0)
    label_smoothing: float = setting(0.0, least=0, below=1)
    random_erasing: float = setting(0.0, least=0, most=1)
    repeats: int = setting(1, least=1)

    teacher: str | None = None
    distillation: Literal["hard", "soft"] = "hard"
    temperature: float = setting(3.0, above=0)
    distillation_weight: float = setting(1.0, least=0)
    token_weight: float = setting(0.0, least=0)

    num_pictures: int = setting(16, least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.augment, list):
            plain = [as_plain(item) for item in self.augment]
            object.__setattr__(self, "augment", plain)
        make_transforms(self)

    @classmethod
    def model_arguments(cls, model: str) -> list[str]:
        """Return the arguments of a builder that are no settings of their own.

        Args:
            model: its name.

        Returns:
            The names.
        """
        settings = {field.name for field in dataclasses.fields(cls)}
        own = {"num_classes", "features", "name"}
        return sorted(_argument_names(builder_of(model)) - settings - own)

    def _defaults(self, has_validation: bool) -> dict[str, Any]:
        peak, images = _LEARNING_RATES[self.optimizer]
        growth = self.batch_size * self.accumulate / images
        if self.optimizer != "sgd":
            growth **= 0.5
        parameters = inspect.signature(builder_of(self.model)).parameters
        return {
            "variant": parameters["variant"].default,
            "resize": preparation(self)["resize"],
            "learning_rate": float(f"{peak * growth:.3g}"),
            "monitor": "val_accuracy" if has_validation else "loss",
        }

    @classmethod
    def _needs_data(cls) -> str:
        return (
            "A recipe needs data: a folder with a folder of images for each class, a "
            "CSV or an .npz file"
        )


def preparation(recipe: ClassifyRecipe) -> dict[str, Any]:
    """Return how photos are brought to the input: for the data and for the model.

    Args:
        recipe: the recipe.

    Returns:
        `resize`, `crop_fraction` and `interpolation`.
    """
    by_default = "stretch" if recipe.data.endswith(".npz") else "crop"
    return {
        "resize": recipe.resize or by_default,
        "crop_fraction": recipe.crop_fraction,
        "interpolation": recipe.interpolation,
    }


def make_transforms(recipe: ClassifyRecipe) -> list[Any]:
    """Make the transforms of a recipe, in the order in which `kvision.data` wants them.

    Args:
        recipe: the recipe.

    Returns:
        Transforms of images, then of batches.

    Raises:
        ValueError: for an unknown name or argument.
    """
    known = {
        name: getattr(data, name)
        for name in data.__all__
        if dataclasses.is_dataclass(getattr(data, name))
    }
    chosen = recipe.augment
    if isinstance(chosen, list):
        made = [make_transform(item, known) for item in chosen]
    else:
        made = data.named_transforms(chosen)
    mixes = [one for one in made if isinstance(one, Mix)]
    made = made[: len(made) - len(mixes)]
    if recipe.random_erasing:
        made.append(data.RandomErasing(recipe.random_erasing))
    if recipe.mixup and recipe.cutmix:
        mixes.append(
            data.MixUpOrCutMix(data.MixUp(recipe.mixup), data.CutMix(recipe.cutmix))
        )
    elif recipe.mixup:
        mixes.append(data.MixUp(recipe.mixup))
    elif recipe.cutmix:
        mixes.append(data.CutMix(recipe.cutmix))
    return [*made, *mixes]


def builder_of(model: str) -> Callable[..., keras.Model]:
    """Return the function that builds a classifier.

    Args:
        model: name of a function of `kvision.models`.

    Returns:
        The function.

    Raises:
        ValueError: there is no such function.
    """
    builders = {
        name: getattr(models, name)
        for name in models.__all__
        if "num_classes" in _argument_names(getattr(models, name))
    }
    if model not in builders:
        raise unknown(model, builders, "classifier")
    builder: Callable[..., keras.Model] = builders[model]
    return builder


def _argument_names(builder: Any) -> set[str]:
    """Return the names of a function's arguments, and of those it hands on."""
    if not inspect.isfunction(builder):
        return set()
    parameters = inspect.signature(builder).parameters
    names = {n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    if len(names) < len(parameters):
        for name, handed_on in builder.__globals__.items():
            if name.startswith("build_") and handed_on is not builder:
                names |= _argument_names(handed_on)
    return names - {"size"}
