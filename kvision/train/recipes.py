"""Recipes: all that decides how a detector is trained, as plain values.

A recipe is what `kvision.train.fit` runs, what a YAML file holds, and what every run
writes into its folder. The functions at the end of this file are recipes for named
data; each states its command and where its result is.
"""

import dataclasses
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml

from kvision.data import transforms
from kvision.models.rcnn import build_rcnn
from kvision.train.files import write_text
from kvision.train.precision import fastest_policy
from kvision.train.settings import (
    convert_fields,
    read_assignments,
    read_yaml,
    setting,
    unknown,
)

__all__ = ["DetectRecipe", "nuclei"]

# Chosen for batches of 4; a larger batch wants more.
_LEARNING_RATES = {"sgd": 0.01, "adamw": 2e-4}
_LONGEST_WARMUP = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectRecipe:
    """How a Faster or Mask R-CNN is trained. Wrong types, ranges and names are errors.

    Args:
        data: folder with COCO json files and images, or one json file.
        images: image folder of a json file; by default found beside it.
        val: json file to validate on; by default found in the folder, and else some of
            the training images are set apart.
        val_images: image folder of `val`; by default that of `data`.
        val_fraction: share of the images set apart where there is no other validation
            data; 0 trains on all and validates nothing.
        class_names: classes to train; by default all of the data.

        model: "mask_rcnn" or "faster_rcnn".
        backbone: such as "mobilenet_v2" or "resnet50".
        weights: of the backbone: "imagenet", a path or none.
        image_size: (height, width) of the model's input in pixels.
        resize: "pad" keeps the aspect ratio, "stretch" does not.
        frozen_stages: stages of the backbone that are not trained; by default 2 with
            weights and 0 without.
        freeze_batch_norm: whether batch normalisation uses constants; by default with
            weights.
        dtype: such as "mixed_bfloat16"; "auto" measures whether that is faster here
            than float32, the default.
        arguments: more arguments of the model, such as {"box_num_samples": 128}.

        batch_size: images a step.
        accumulate: steps whose gradients make one change of the weights.
        epochs: passes over the training images.
        max_minutes: stop after this time, scored and saved like a run that ended. The
            learning rate is a function of the step, so choose `epochs` to match.
        optimizer: "sgd" or "adamw".
        learning_rate: its peak; by default 0.01 for SGD and 0.0002 for AdamW.
        momentum: of SGD.
        weight_decay: of kernels; see `kvision.train.optimizers`.
        clipnorm: the largest norm of all gradients together.
        schedule: "cosine" to 1 % of the peak, "step" or "constant".
        milestones: for "step": shares of the run after which the rate is divided by 10.
        warmup_steps: steps of linear warm-up; by default a tenth of the run, at most
            500.
        ema: momentum of a moving average of the weights, such as 0.99, which is then
            what is scored and saved.
        seed: of weights, order, augmentation and sampling.
        deterministic: whether two runs of a recipe are equal to the last bit, at a few
            per cent of the speed. On a CPU only. (TensorFlow's gradient of
            `crop_and_resize` loses a few additions to its threads otherwise.)
        jit_compile: whether XLA compiles the steps; "auto" does on an accelerator.

        augment: true for the default set, false for none, or a list of names in
            `kvision.data.transforms`, with arguments as [HorizontalFlip,
            {LargeScaleJitter: {low: 0.8, high: 1.25}}].
        max_instances: objects an image has room for; by default the largest count.
        mask_size: cells along each side of a mask in training.
        cache: true keeps decoded images in memory, a path in that folder.
        on_error: "raise" stops at faults of the data, "skip" leaves them out and counts
            them.

        evaluate_every: epochs from one validation to the next; the last is always one.
        validation_loss: whether validation also computes the losses.
        monitor: what says which epoch is best: by default "val_mask_ap" or
            "val_box_ap", and "loss" without validation.
        patience: stop after so many validations without a better one.
        checkpoint_minutes: time between checkpoints within an epoch; there is one at
            the end of each epoch anyway.
        num_pictures: validation pictures in the run folder.
    """

    data: str
    images: str | None = None
    val: str | None = None
    val_images: str | None = None
    val_fraction: float = setting(0.2, least=0, below=1)
    class_names: list[str] | None = None

    model: Literal["mask_rcnn", "faster_rcnn"] = "mask_rcnn"
    backbone: str = "mobilenet_v2"
    weights: str | None = "imagenet"
    image_size: tuple[int, int] = setting((512, 512), least=64)
    resize: Literal["pad", "stretch"] = "pad"
    frozen_stages: int | None = setting(None, least=0, most=5)
    freeze_batch_norm: bool | None = None
    dtype: str | None = None
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    batch_size: int = setting(4, least=1)
    accumulate: int = setting(1, least=1)
    epochs: int = setting(20, least=1)
    max_minutes: float | None = setting(None, above=0)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float | None = setting(None, above=0)
    momentum: float = setting(0.9, least=0, below=1)
    weight_decay: float = setting(1e-4, least=0)
    clipnorm: float | None = setting(None, above=0)
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[float, ...] = setting((0.7, 0.9), above=0, below=1)
    warmup_steps: int | None = setting(None, least=0)
    ema: float | None = setting(None, above=0, below=1)
    seed: int = setting(0, least=0)
    deterministic: bool = True
    jit_compile: bool | Literal["auto"] = "auto"

    augment: bool | list[Any] = True
    max_instances: int | None = setting(None, least=1)
    mask_size: int = setting(56, least=1)
    cache: bool | str = False
    on_error: Literal["raise", "skip"] = "raise"

    evaluate_every: int = setting(1, least=1)
    validation_loss: bool = True
    monitor: str | None = None
    patience: int | None = setting(None, least=1)
    checkpoint_minutes: float = setting(10.0, above=0)
    num_pictures: int = setting(8, least=0)

    def __post_init__(self) -> None:
        convert_fields(self)
        for name in self.arguments:
            if name not in _model_arguments():
                raise unknown(name, _model_arguments())
        if not isinstance(self.augment, bool):
            plain = [_as_plain(item) for item in self.augment]
            object.__setattr__(self, "augment", plain)
        make_transforms(self.augment)

    @classmethod
    def from_yaml(cls, path: "str | Path") -> "DetectRecipe":
        """Read a recipe.

        Args:
            path: a YAML file of settings.

        Returns:
            The recipe.

        Raises:
            ValueError: a setting is unknown, wrong or missing; the message names it.
        """
        return cls.from_settings(read_yaml(Path(path)))

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "DetectRecipe":
        """Make a recipe of settings, among them arguments of the model.

        Args:
            settings: name -> value, as in YAML.

        Returns:
            The recipe.

        Raises:
            ValueError: a setting is unknown, wrong or missing; the message names it.
        """
        settings = _with_arguments(settings, {})
        if settings.get("data") is None:
            raise ValueError("A recipe needs data: a folder or a COCO json file")
        return cls(**settings)

    def with_settings(
        self, settings: "dict[str, Any] | Iterable[str]"
    ) -> "DetectRecipe":
        """Return the recipe with some settings changed.

        Args:
            settings: name -> value, or texts such as "epochs=10". The names of the
                model's arguments will do too: "box_num_samples=128".

        Returns:
            A new recipe.

        Raises:
            ValueError: a setting is unknown or wrong; the message names it.
        """
        if not isinstance(settings, dict):
            settings = read_assignments(settings)
        return dataclasses.replace(self, **_with_arguments(settings, self.arguments))

    def to_yaml(self, path: "str | Path") -> None:
        """Write the recipe; `from_yaml` reads it back.

        Args:
            path: the YAML file.
        """
        settings = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }
        text = yaml.safe_dump(settings, sort_keys=False, default_flow_style=None)
        write_text(Path(path), text)

    def resolved(self, steps_per_epoch: int, has_validation: bool) -> "DetectRecipe":
        """Fill in what a setting of none stands for, and make paths absolute.

        Args:
            steps_per_epoch: batches of the training data.
            has_validation: whether there is data to validate on.

        Returns:
            The recipe to write into a run folder.
        """
        steps = self.epochs * steps_per_epoch
        warmup = min(steps // 10, _LONGEST_WARMUP)
        score = "val_mask_ap" if self.model == "mask_rcnn" else "val_box_ap"
        filled: dict[str, Any] = {
            "learning_rate": _LEARNING_RATES[self.optimizer],
            "warmup_steps": warmup,
            "monitor": score if has_validation else "loss",
            "frozen_stages": 2 if self.weights else 0,
            "freeze_batch_norm": self.weights is not None,
            "dtype": "float32",
        }
        changes = {k: v for k, v in filled.items() if getattr(self, k) is None}
        if self.dtype == "auto":
            changes["dtype"] = fastest_policy()
        for name in ("data", "images", "val", "val_images"):
            if (path := getattr(self, name)) is not None:
                changes[name] = str(Path(path).absolute())
        return dataclasses.replace(self, **changes)


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
    return [_make_transform(item) for item in augment]


def _as_plain(item: Any) -> Any:
    """Write a transform of `kvision.data` as {name: {argument: value}}."""
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {type(item).__name__: dataclasses.asdict(item)}
    if callable(item):
        raise ValueError(
            "A recipe names the transforms of kvision.data.transforms, so that it can "
            f"be written down. Received: {item!r}. For one of your own, train with "
            "model.fit"
        )
    return item


def _make_transform(item: Any) -> Any:
    pair = {item: {}} if isinstance(item, str) else item
    if not isinstance(pair, dict) or len(pair) != 1:
        raise ValueError(
            "augment must be a list of names or of {name: {argument: value}}. "
            f"Received: {item!r}"
        )
    ((name, arguments),) = pair.items()
    known = [one for one in transforms.__all__ if one[0].isupper()]
    if name not in known:
        raise unknown(name, known, "transform")
    try:
        return getattr(transforms, name)(**(arguments or {}))
    except TypeError as error:
        raise ValueError(f"augment: {name}: {error}") from error


def _model_arguments() -> list[str]:
    """Return the arguments of the model that are no settings of their own."""
    names = inspect.signature(build_rcnn).parameters
    settings = {field.name for field in dataclasses.fields(DetectRecipe)}
    return sorted(set(names) - settings - {"masks", "name"})


def _with_arguments(
    settings: dict[str, Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Move arguments of the model under `arguments`; refuse unknown names."""
    fields = [field.name for field in dataclasses.fields(DetectRecipe)]
    given = settings.get("arguments") or {}
    if not isinstance(given, dict):
        raise ValueError(f"arguments must be name: value. Received: {given!r}")
    model = {key: value for key, value in settings.items() if key not in fields}
    for name in model:
        if name not in _model_arguments():
            raise unknown(name, [*fields, *_model_arguments()])
    rest = {key: value for key, value in settings.items() if key in fields}
    if given or model:
        rest["arguments"] = {**arguments, **given, **model}
    return rest


def nuclei(data: str, weights: str) -> DetectRecipe:
    """Return the recipe for the nuclei of the Data Science Bowl 2018.

    Command, with the data in `nuclei/` (433 training and 105 validation images):
    `kvision train detect nuclei/ --recipe nuclei.yaml`, the file being this recipe's
    `to_yaml`. It is made for ten minutes on two CPU cores; result, time and
    machine: benchmarks/RESULTS.md.

    Args:
        data: folder with train.json, val.json and the images.
        weights: path of ImageNet weights of MobileNetV2, or "imagenet".

    Returns:
        The recipe.
    """
    return DetectRecipe(
        data=data,
        backbone="mobilenet_v2",
        weights=weights,
        image_size=(256, 256),
        dtype="auto",
        deterministic=False,
        batch_size=4,
        epochs=4,
        learning_rate=0.02,
        augment=["HorizontalFlip", "VerticalFlip", "Rotate90"],
        cache=True,
        evaluate_every=4,
        validation_loss=False,
        arguments={
            "anchor_sizes": [8, 16, 32, 64, 128],
            "max_detections": 200,
            # Half of the usual numbers: images of 256 px hold few places, and the time
            # of a step is that of its regions.
            "rpn_train_post_nms_top_k": 1000,
            "box_num_samples": 256,
        },
    )
