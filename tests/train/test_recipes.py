"""Recipes: types, ranges, names, YAML, defaults."""

from pathlib import Path
from typing import Any

import pytest

from kvision.data.transforms import HorizontalFlip, LargeScaleJitter
from kvision.train.detect_recipe import make_transforms
from kvision.train.recipes import DetectRecipe, nuclei
from kvision.train.settings import read_assignments


def recipe(**settings: Any) -> DetectRecipe:
    return DetectRecipe(data="photos", **settings)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("learning_rate=1e-4", "learning_rate", 1e-4),  # YAML takes it for a text
        ("learning_rate=1", "learning_rate", 1.0),
        ("image_size=256", "image_size", (256, 256)),
        ("image_size=256x320", "image_size", (256, 320)),
        ("image_size=[256, 320]", "image_size", (256, 320)),
        ("weights=none", "weights", None),
        ("weights=a=b.h5", "weights", "a=b.h5"),
        ("cache=true", "cache", True),
        ("cache=/tmp/cache", "cache", "/tmp/cache"),
        ("augment=[HorizontalFlip]", "augment", ["HorizontalFlip"]),
        ("jit_compile=auto", "jit_compile", "auto"),
        ("jit_compile=false", "jit_compile", False),
        ("milestones=[0.5]", "milestones", (0.5,)),
        ("class_names=[cat, dog]", "class_names", ["cat", "dog"]),
        ("max_minutes=15", "max_minutes", 15.0),
    ],
)
def test_key_value(text: str, name: str, value: Any) -> None:
    changed = recipe().with_settings([text])
    assert getattr(changed, name) == value
    assert type(getattr(changed, name)) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs=0", r"epochs must be at least 1\. Received: epochs=0"),
        ("epochs=2.5", r"epochs must be a whole number\. Received: epochs=2\.5"),
        ("epochs=true", "epochs must be a whole number"),
        ("epochs=many", "epochs must be a whole number.*'many'"),
        ("learning_rate=-1", r"learning_rate must be above 0\. Received.*-1"),
        ("learning_rate=.nan", "learning_rate must be above 0"),
        ("learning_rate=fast", "learning_rate must be a number or none"),
        ("momentum=1", "momentum must be at least 0 and below 1"),
        ("image_size=32", r"image_size must be at least 64\. Received.*\(32, 32\)"),
        ("image_size=axb", r"image_size must be \(height, width\)"),
        ("optimizer=sdg", "optimizer must be 'sgd' or 'adamw'. Received.*'sdg'"),
        ("jit_compile=maybe", "must be true or false or 'auto'"),
        ("milestones=[2]", "milestones must be above 0 and below 1"),
        ("epoch=3", "No setting 'epoch'. Did you mean epochs?"),
        ("lr=3", r"No setting 'lr'\. Did you mean learning_rate\?"),
        ("box_num_sample=3", r"No setting .* Did you mean box_num_samples"),
        ("zzz=3", r"No setting 'zzz'\. There are: .*epochs.*"),
        ("augment=[HorizontalFlp]", "No transform .* Did you mean HorizontalFlip?"),
        ("augment=[{Rotate: {degree: 3}}]", "augment: Rotate.*'degree'"),
        ("augment=[3]", "augment must be a list of names"),
        ("epochs", "Expected KEY=VALUE, such as epochs=10. Received: epochs"),
        ("augment=[", "the value cannot be read"),
        ("arguments=3", "arguments must be name: value"),
        ("masks=true", "No setting 'masks'"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe().with_settings([text])


def test_the_constructor_checks_too() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        recipe(batch_size=0)
    with pytest.raises(ValueError, match="No setting 'box_hiden_dim'"):
        recipe(arguments={"box_hiden_dim": 3})


def test_arguments_of_the_model_are_settings_too() -> None:
    first = recipe(arguments={"box_num_samples": 8, "max_detections": 5})
    changed = first.with_settings(["box_num_samples=16", "rpn_channels=4"])
    assert changed.arguments == {
        "box_num_samples": 16,
        "max_detections": 5,
        "rpn_channels": 4,
    }
    assert first.arguments["box_num_samples"] == 8


def test_yaml_round_trip(tmp_path: Path) -> None:
    chosen = recipe(
        image_size=(128, 64),
        augment=[HorizontalFlip(0.3), {"LargeScaleJitter": {"low": 0.8, "high": 1.2}}],
        learning_rate=3e-5,
        arguments={"anchor_sizes": [8, 16, 32, 64, 128]},
    )
    chosen.to_yaml(tmp_path / "recipe.yaml")
    again = DetectRecipe.from_yaml(tmp_path / "recipe.yaml")
    assert again == chosen
    assert make_transforms(again.augment) == [
        HorizontalFlip(0.3),
        LargeScaleJitter(0.8, 1.2),
    ]


def test_a_function_cannot_be_written_down() -> None:
    with pytest.raises(ValueError, match=r"names the transforms.*model\.fit"):
        recipe(augment=[lambda sample, seed: sample])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: [", "no YAML that could be read"),
        ("- 1\n- 2\n", "must hold lines such as `epochs: 10`. Received: list"),
        ("epochs: 3\n", "A recipe needs data"),
        ("data: x\nepoch: 3\n", "Did you mean epochs"),
        ("data: !!python/object/apply:os.getcwd []\n", "no YAML that could be read"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        DetectRecipe.from_yaml(path)


def test_resolved_fills_in_and_keeps(tmp_path: Path) -> None:
    done = recipe(epochs=10, weights=None).resolved(20, has_validation=True)
    assert (done.learning_rate, done.warmup_steps) == (0.01, 20)
    assert (done.monitor, done.frozen_stages) == ("val_mask_ap", 0)
    assert done.freeze_batch_norm is False
    assert done.dtype == "float32"
    assert Path(done.data).is_absolute()
    assert done.resolved(999, has_validation=True) == done
    boxes = recipe(model="faster_rcnn", optimizer="adamw", frozen_stages=5)
    done = boxes.resolved(10**6, has_validation=False)
    assert (done.learning_rate, done.warmup_steps) == (2e-4, 500)
    assert (done.monitor, done.frozen_stages) == ("loss", 5)
    assert done.freeze_batch_norm is True


def test_dtype_auto_is_measured() -> None:
    done = recipe(dtype="auto").resolved(1, has_validation=False)
    assert done.dtype in ("float32", "mixed_bfloat16")


def test_assignments_keep_equals_signs_of_the_value() -> None:
    assert read_assignments(["a=b=c", "n=1"]) == {"a": "b=c", "n": 1}


def test_named_recipe_is_one() -> None:
    chosen = nuclei("nuclei/", "imagenet")
    assert chosen.arguments["max_detections"] == 200
    assert chosen.image_size == (256, 256)
