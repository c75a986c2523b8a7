"""Runs of classifiers: files, resuming to the last bit, weights, teachers, faults."""

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tensorflow.python.framework.config import disable_op_determinism

from kvision import models
from kvision.models.vit import VARIANTS, ViTSize
from kvision.train import ClassifyRecipe, fit
from kvision.train.checkpoints import read_newest
from kvision.train.classify_recipe import builder_of, make_transforms
from kvision.train.classify_sources import find_sources, image_ids
from kvision.train.finite import NonFiniteLossError
from kvision.train.opening import begin
from kvision.train.pretrained import load_pretrained


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images, bright above or below: 24 to train on, 8 to validate on."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, number in (("train", 24), ("val", 8)):
        labels = rng.integers(0, 2, number)
        images = rng.integers(0, 80, (number, 16, 16), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[8 * label : 8 * label + 8] += 120
        arrays |= {f"{split}_images": images, f"{split}_labels": labels[:, None]}
    path = tmp_path_factory.mktemp("npz") / "halves.npz"
    np.savez(path, **arrays)
    return path


def tiny_vit(**arguments: Any) -> keras.Model:
    """A Vision Transformer of 2 blocks of width 16."""
    size = models.vit.__globals__["ViTSize"](16, 2, 2, 32)
    stem = models.vit.__globals__["layers"].PatchEmbedding(
        16, (8, 8), dtype=arguments.get("dtype"), name="patch_embedding"
    )
    arguments.pop("variant", None)
    build = models.vit.__globals__["build_vit"]
    return build(size, stem, **{"class_names": None, **arguments})


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let "vit" build the tiny one."""
    from kvision.train import classify

    monkeypatch.setattr(classify, "builder_of", lambda name: tiny_vit)


def recipe(data: Path, **settings: Any) -> ClassifyRecipe:
    return ClassifyRecipe(
        **{
            "data": str(data),
            "image_size": 16,
            "batch_size": 8,
            "epochs": 2,
            "learning_rate": 0.01,
            "warmup_steps": 0,
            "augment": ["HorizontalFlip"],
            "num_pictures": 4,
            "deterministic": False,
            **settings,
        }
    )


def run(chosen: Any, folder: Path, **options: Any) -> tuple[Any, str]:
    output = io.StringIO()
    console = Console(file=output, width=200)
    if isinstance(chosen, Path):
        return fit(resume=chosen, console=console, **options), output.getvalue()
    result = fit(chosen, runs=folder, name="run", console=console, **options)
    return result, output.getvalue()


FULL: dict[str, Any] = {
    "mixup": 0.2,
    "cutmix": 1.0,
    "random_erasing": 0.3,
    "label_smoothing": 0.1,
    "layer_decay": 0.7,
    "ema": 0.5,
    "clipnorm": 1.0,
    "drop_path": 0.2,
    "accumulate": 2,
    "distillation": "soft",
    "deterministic": True,
}


@pytest.fixture(scope="module")
def full(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> ClassifyRecipe:
    """A recipe that has everything a step may depend on, a teacher too."""
    teacher = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    tiny_vit(class_names=["0", "1"], image_size=(32, 32)).save(teacher)
    return recipe(npz, teacher=str(teacher), **FULL)


@pytest.fixture(scope="module")
def whole(
    full: ClassifyRecipe, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Any]]:
    """A run that nothing stopped."""
    with pytest.MonkeyPatch.context() as patch:
        from kvision.train import classify

        patch.setattr(classify, "builder_of", lambda name: tiny_vit)
        result, said = run(full, tmp_path_factory.mktemp("whole"))
    assert "24 images to train on, 8 to validate on, classes: 2" in said
    yield result.folder, result
    # A deterministic run is one for the rest of the process; no public way leads back.
    disable_op_determinism()


def test_a_run_leaves_everything(whole: tuple[Path, Any]) -> None:
    folder, result = whole
    assert result.stopped == "epochs"
    assert set(result.scores) >= {"val_accuracy", "val_loss", "confusion", "per_class"}
    assert np.sum(result.scores["confusion"]) == 8
    assert json.loads((folder / "best.json").read_text()) == result.scores
    assert ClassifyRecipe.from_yaml(folder / "recipe.yaml").monitor == "val_accuracy"
    for name in ("train_images.jpg", "validation/images.jpg", "curves.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
    assert (folder / "validation/confusion.png").exists()
    model = keras.models.load_model(folder / "best.keras", safe_mode=True)
    assert model.get_layer("head").class_names == ["0", "1"]
    assert model.get_layer("preprocessing").resize == "stretch"
    header = (folder / "results.csv").read_text().splitlines()[0]
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(header.split(","))


class Stop(keras.callbacks.Callback):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


# Of six steps: 2 ends a change of the weights, 3 an epoch in the middle of one.
@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 3, 5])
def test_stopped_and_resumed_equals_the_whole(
    whole: tuple[Path, Any], full: ClassifyRecipe, tmp_path: Path, step: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(full, tmp_path, callbacks=[Stop(step)])
    folder = tmp_path / "run"
    _, said = run(folder, tmp_path)
    assert "Going on with epoch" in said
    ours, theirs = (
        read_newest(each / "checkpoints").arrays for each in (folder, whole[0])
    )
    for (key, array), other in zip(ours.items(), theirs.values(), strict=True):
        np.testing.assert_array_equal(array, other, err_msg=key)


def test_nan_names_the_images(npz: Path, tmp_path: Path) -> None:
    class Spoil(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 1:
                weight = self.model.get_layer("head").bias
                weight.assign(np.full(weight.shape, np.nan))

    with pytest.raises(NonFiniteLossError, match=r"epoch 1, step 2") as caught:
        run(recipe(npz), tmp_path, callbacks=[Spoil()])
    sources = find_sources(recipe(npz))
    assert caught.value.image_ids == image_ids(sources, 0, 1)
    assert len(caught.value.image_ids) == 8


def test_names_of_a_batch_are_those_of_its_images(npz: Path) -> None:
    chosen = recipe(npz, augment=False, repeats=2, seed=5)
    sources = find_sources(chosen)
    with np.load(npz) as content:
        images = content["train_images"]
    for epoch, step in ((0, 0), (0, 2), (3, 1)):
        batch, _ = next(iter(sources.training(epoch, step)))
        names = image_ids(sources, epoch, step)
        expected = np.stack([images[int(name)] for name in names])
        np.testing.assert_array_equal(np.asarray(batch)[..., 0], expected)


def test_weights_of_other_classes_begin_with_a_new_head(
    npz: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keras.utils.set_random_seed(3)
    source = tiny_vit(num_classes=5, image_size=(24, 24))
    path = tmp_path / "source.keras"
    source.save(path)
    model = begin(recipe(npz, weights=str(path)), tmp_path, "run").model
    assert "which begins anew: the file's is of 5 classes, this one of 2" in caplog.text
    kernel = [m.get_layer("block_1").attention.qkv.kernel for m in (source, model)]
    np.testing.assert_array_equal(*map(np.asarray, kernel))
    table = model.get_layer("position_embedding").table
    expected = models.with_image_size(source, (16, 16)).get_layer("position_embedding")
    np.testing.assert_array_equal(np.asarray(table), np.asarray(expected.table))


@pytest.mark.parametrize("kind", ["weights.h5", "checkpoint"])
def test_weights_of_other_files(
    whole: tuple[Path, Any], tmp_path: Path, kind: str
) -> None:
    names = ["0", "1"]
    keras.utils.set_random_seed(4)
    source = tiny_vit(class_names=names, image_size=(16, 16))
    path = tmp_path / "x.weights.h5"
    source.save_weights(path)
    expected = source.get_weights()
    if kind == "checkpoint":
        path = max((whole[0] / "checkpoints").glob("*.safetensors"))
        arrays = read_newest(path.parent).arrays
        expected = [a for k, a in arrays.items() if k.startswith("model/")]
        expected = [a for a in expected if a.dtype == np.float32]
    model = tiny_vit(class_names=names, image_size=(16, 16))
    load_pretrained(model, path, lambda n: tiny_vit(num_classes=n, image_size=(16, 16)))
    for own, other in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(own, other)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    other = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(2, 3)])
    other.save(tmp_path / "other.keras")
    model = tiny_vit(num_classes=2, image_size=(16, 16))
    with pytest.raises(ValueError, match="no layer 'patch_embedding', and"):
        load_pretrained(model, tmp_path / "other.keras", lambda n: model)
    with pytest.raises(ValueError, match="No such file of weights"):
        load_pretrained(model, tmp_path / "none.keras", lambda n: model)


@pytest.mark.slow
@pytest.mark.parametrize("distillation", ["hard", "soft"])
def test_a_teacher_in_a_recipe(npz: Path, tmp_path: Path, distillation: str) -> None:
    teacher = tmp_path / "teacher.keras"
    tiny_vit(class_names=["0", "1"], image_size=(32, 32)).save(teacher)
    chosen = recipe(
        npz,
        teacher=str(teacher),
        distillation=distillation,
        arguments={"distillation_token": True},
        epochs=1,
    )
    result, _ = run(chosen, tmp_path)
    names = [layer.name for layer in result.model.layers]
    assert "head_dist" in names
    assert "distillation" not in names
    keras.models.load_model(result.folder / "best.keras")
    longer, _ = run(result.folder, tmp_path, changes={"epochs": 2})
    assert longer.epochs == 2


@pytest.mark.slow
def test_a_dynamic_vit_learns_from_its_teacher(
    npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kvision.train import classify

    monkeypatch.setattr(classify, "builder_of", builder_of)
    monkeypatch.setitem(VARIANTS, "tiny", ViTSize(16, 2, 2, 32))
    teacher = str(tmp_path / "deit.keras")
    models.deit("tiny/8", class_names=["0", "1"], image_size=(16, 16)).save(teacher)
    chosen = recipe(
        npz,
        model="dynamic_vit",
        variant="tiny/8",
        weights=teacher,
        teacher=teacher,
        distillation="soft",
        temperature=1.0,
        distillation_weight=0.5,
        token_weight=0.5,
        arguments={"prune_at": [1]},
        epochs=1,
    )
    result, _ = run(chosen, tmp_path)
    started = begin(chosen, tmp_path, "again").model
    assert started.get_layer("distillation").token_weight == 0.5
    saved = keras.models.load_model(result.folder / "best.keras")
    assert "distillation" not in [layer.name for layer in saved.layers]
    images = np.load(npz)["val_images"][..., None].repeat(3, -1)
    np.testing.assert_allclose(saved(images), result.model(images), atol=1e-5)


def test_transforms_stand_in_the_order_that_the_data_wants() -> None:
    chosen = ClassifyRecipe(
        data="x", augment="deit", random_erasing=0.2, mixup=0.5, optimizer="lamb"
    )
    names = [type(one).__name__ for one in make_transforms(chosen)]
    assert names[0] == "RandomResizedCrop"
    assert names[-3:] == ["RandomErasing", "MixUpOrCutMix", "MixUp"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model=vti", r"No classifier 'vti'. Did you mean vit\?"),
        ("epoch=3", "Did you mean epochs"),
        ("optimizer=adam", "'adamw' or 'lamb' or 'sgd'"),
        ("layer_decay=1.5", "layer_decay must be above 0 and at most 1"),
        ("augment=[HorizontalFlp]", "No transform .* Did you mean HorizontalFlip"),
        ("register_tokens=2", "Did you mean num_register_tokens"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassifyRecipe(data="x").with_settings([text])


def test_learning_rates_grow_with_the_batch() -> None:
    for name, batch, accumulate, rate in (
        ("adamw", 128, 1, 2.5e-4),
        ("adamw", 64, 8, 5e-4),
        ("lamb", 512, 1, 1.5e-3),
        ("sgd", 128, 1, 0.0075),
    ):
        chosen = ClassifyRecipe(
            data="x", optimizer=name, batch_size=batch, accumulate=accumulate
        )
        assert chosen.resolved(10, True).learning_rate == pytest.approx(rate)


def test_a_recipe_of_another_task_is_refused(tmp_path: Path) -> None:
    from kvision.train import DetectRecipe

    ClassifyRecipe(data="x").to_yaml(tmp_path / "recipe.yaml")
    with pytest.raises(ValueError, match="one of `kvision train classify`, not of"):
        DetectRecipe.from_yaml(tmp_path / "recipe.yaml")
