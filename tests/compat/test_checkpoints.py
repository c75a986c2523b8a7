"""Weight files: matterport's layout, our own and ImageNet's; names of layers."""

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

import kvision as kv
from kvision.compat import matterport as utils
from kvision.compat.matterport import (
    checkpoints,
    coco_weights,
    imagenet,
    layer_names,
)
from kvision.compat.matterport.arguments import mask_rcnn_arguments
from kvision.models.detector import Detector
from kvision.weights.checkpoint import CheckpointError
from tests.compat.small import HEADS, SmallConfig, with_settings, write_coco

CLASS_LAYERS = set(HEADS) - {"mrcnn_bbox"}


def new_model(**settings: Any) -> Detector:
    config = with_settings(**settings) if settings else SmallConfig()
    return kv.models.mask_rcnn(**mask_rcnn_arguments(config))


@pytest.fixture(scope="module")
def model(quick: None) -> Detector:
    return new_model()


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    path = tmp_path_factory.mktemp("coco") / "mask_rcnn_coco.h5"
    return path, write_coco(path)


def by_layer(model: Detector) -> dict[str, list[np.ndarray]]:
    """Copy the weights, by matterport's name of their layer."""
    owners = layer_names.layer_names(model)
    found: dict[str, list[np.ndarray]] = {}
    for variable in model.weights:
        found.setdefault(owners[id(variable)], []).append(np.array(variable))
    return found


def changed(before: dict[str, list], after: dict[str, list]) -> set[str]:
    return {
        name
        for name in before
        if any((a != b).any() for a, b in zip(before[name], after[name], strict=True))
    }


def test_coco_weights_but_for_the_heads(model: Detector, coco: Any) -> None:
    """As every script begins: the last layers stay as they are, the rest is filled."""
    path, tensors = coco
    before = by_layer(model)
    report = checkpoints.load(model, path, by_name=True, exclude=HEADS)
    after = by_layer(model)
    assert changed(before, after) == before.keys() - CLASS_LAYERS
    assert report.source == "matterport"
    heads = {name for name in tensors if name.split("/")[0] in CLASS_LAYERS}
    assert set(report.unused) == heads
    assert set(report.matched) == tensors.keys() - heads
    assert set(report.fresh) == {
        "box_head/classes/kernel",
        "box_head/classes/bias",
        "box_head/deltas/kernel",
        "box_head/deltas/bias",
        "mask_head/class_kernel",
        "mask_head/class_bias",
    }
    # The values are those that kvision.weights.load gives a model of 80 classes.
    whole = new_model(NUM_CLASSES=81)
    kv.weights.load(whole, path)
    for name, values in by_layer(whole).items():
        if name not in CLASS_LAYERS:
            for ours, theirs in zip(after[name], values, strict=True):
                np.testing.assert_array_equal(ours, theirs, name)


def test_other_classes_are_an_error(model: Detector, coco: Any) -> None:
    before = by_layer(model)
    with pytest.raises(CheckpointError, match=r"81\) instead of .*3\).*exclude=\["):
        checkpoints.load(model, coco[0], by_name=True)
    with pytest.raises(CheckpointError, match=r"mrcnn_mask/kernel .*Nothing was"):
        checkpoints.load(model, coco[0], by_name=True, exclude=HEADS[:3])
    assert not changed(before, by_layer(model))


def test_names_to_exclude(model: Detector, coco: Any) -> None:
    with pytest.raises(ValueError, match=r"there are not: \['mrcnn_logits'\]"):
        checkpoints.load(model, coco[0], exclude=["mrcnn_logits", *HEADS])
    with pytest.raises(ValueError, match=r"must be a list of names\. Received: 'mrcnn"):
        checkpoints.load(model, coco[0], exclude="mrcnn_mask")


def test_missing_layers(model: Detector, coco: Any, tmp_path: Path) -> None:
    path = tmp_path / "part.h5"
    with h5py.File(coco[0]) as whole, h5py.File(path, "w") as part:
        for name in ("conv1", "bn_conv1", "fpn_c5p5"):
            whole.copy(name, part)
    before = by_layer(model)
    with pytest.raises(CheckpointError, match=r"tensors are missing: .*by_name=True"):
        checkpoints.load(model, path)
    assert not changed(before, by_layer(model))
    for variable in model.weights:
        variable.assign(variable + 1)
    before = by_layer(model)
    report = checkpoints.load(model, path, by_name=True)
    assert changed(before, by_layer(model)) == {"conv1", "bn_conv1", "fpn_c5p5"}
    assert len(report.matched) == 2 + 4 + 2


def test_our_own_files(model: Detector, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "mask_rcnn_squares_0001.h5"
    checkpoints.write(model, path)
    other = new_model()
    report = checkpoints.load(other, path)
    assert report.source == "kvision"
    assert len(report.matched) == len(model.weights)
    assert report.fresh == report.unused == ()
    assert not changed(by_layer(model), by_layer(other))
    kv.weights.load(new_model(), path)
    # For other classes.
    another = new_model(NUM_CLASSES=5)
    before = by_layer(another)
    with pytest.raises(CheckpointError, match=r"box_head/classes/kernel .*exclude="):
        checkpoints.load(another, path, by_name=True)
    checkpoints.load(another, path, exclude=HEADS)
    assert not changed(before, by_layer(another)) & CLASS_LAYERS
    np.testing.assert_array_equal(
        by_layer(another)["rpn_conv_shared"][0], by_layer(model)["rpn_conv_shared"][0]
    )


def test_files_of_keras_and_kvision(model: Detector, tmp_path: Path) -> None:
    kept, safe = tmp_path / "a.weights.h5", tmp_path / "a.safetensors"
    model.save_weights(kept)
    kv.weights.save(model, safe)
    for path, source in ((kept, "keras"), (safe, "kvision")):
        other = new_model()
        assert checkpoints.load(other, path, by_name=True).source == source
        assert not changed(by_layer(model), by_layer(other))
    with pytest.raises(ValueError, match="knows no names of layers to exclude"):
        checkpoints.load(model, kept, exclude=HEADS)


def test_imagenet(model: Detector, tmp_path: Path) -> None:
    """The names of keras.applications, which brings a ResNet of all its blocks."""
    theirs = keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    for number, variable in enumerate(theirs.weights):
        noise = np.random.default_rng(number).uniform(0.5, 1, variable.shape)
        variable.assign(noise)
    path = tmp_path / "resnet50_notop.h5"
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, theirs)
    for variable in model.weights:
        variable.assign(variable * 0 + 0.3)
    report = checkpoints.load(model, path, by_name=True)
    assert report.source == "keras.applications"
    backbone = next(layer for layer in model.layers if hasattr(layer, "layers"))
    assert len(report.fresh) == len(model.weights) - len(backbone.weights)
    pairs = {
        "conv1": "conv1_conv",
        "layer1_0_conv1": "conv2_block1_1_conv",
        "layer1_0_downsample_0": "conv2_block1_0_conv",
        "layer4_0_conv3": "conv5_block1_3_conv",
    }
    for ours, name in pairs.items():
        kernel = np.array(theirs.get_layer(name).kernel)
        if ours == "conv1":
            kernel = kernel[:, :, ::-1]  # they are for BGR
        np.testing.assert_array_equal(backbone.get_layer(ours).kernel, kernel)
    norm, conv = theirs.get_layer("conv3_block1_2_bn"), "conv3_block1_2_conv"
    found = backbone.get_layer("layer2_0_bn2")
    np.testing.assert_array_equal(found.gamma, norm.gamma)
    np.testing.assert_allclose(
        found.moving_mean,
        np.array(norm.moving_mean) - np.array(theirs.get_layer(conv).bias),
        rtol=1e-6,
    )


def test_where_imagenet_weights_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def get_file(name: str, url: str, **settings: Any) -> str:
        asked.append((name, url, settings["file_hash"]))
        if "101" in name:
            raise Exception("URL fetch failure")
        return "/somewhere/" + name

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    assert imagenet.download("resnet50").endswith(
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    )
    from keras.src.applications import resnet

    ((name, url, md5),) = asked
    assert url == resnet.BASE_WEIGHTS_PATH + name
    assert md5 == resnet.WEIGHTS_HASHES["resnet50"][1]
    with pytest.raises(ValueError, match=r"could not be downloaded.*URL fetch failure"):
        imagenet.download("resnet101")
    assert asked[1][2] == resnet.WEIGHTS_HASHES["resnet101"][1]


def test_download_of_the_coco_weights(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def download(url: str, path: Path, max_bytes: int) -> None:
        assert url.endswith("/matterport/Mask_RCNN/releases/download/v2.0/" + name)
        path.write_text("weights")
        if fails:
            raise ValueError("the connection broke")

    monkeypatch.setattr(coco_weights, "download", download)
    name, fails = "mask_rcnn_coco.h5", False
    path = tmp_path / "new" / name
    utils.download_trained_weights(str(path))
    assert path.read_text() == "weights"
    assert name in capsys.readouterr().out
    fails = True
    with pytest.raises(ValueError, match="broke"):
        utils.download_trained_weights(tmp_path / name, verbose=0)
    assert not (tmp_path / name).exists()
    assert not capsys.readouterr().out


def test_files_that_are_refused(model: Detector, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weight file .*none\.h5"):
        checkpoints.load(model, tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not weights")
    with pytest.raises(CheckpointError, match=r"text\.h5"):
        checkpoints.load(model, tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["dense/kernel"] = np.zeros((2, 3), np.float32)
    with pytest.raises(CheckpointError, match=r"none of its tensors .*dense/kernel"):
        checkpoints.load(model, tmp_path / "other.h5", by_name=True)


def test_a_damaged_file_leaves_the_one_before(model: Detector, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_text("before")

    class Broken:
        path = "a/kernel"

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            raise RuntimeError("killed")

    class Model:
        name = "broken"
        weights = (*model.weights[:2], Broken())

    with pytest.raises(RuntimeError, match="killed"):
        checkpoints.write(Model(), path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_last_file_of_the_last_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"squares20180131T2359. Train first"):
        checkpoints.find_last(tmp_path / "none", "squares")
    for name in (
        "squares20200101T0000/mask_rcnn_squares_0009.h5",
        "squares20200102T0000/mask_rcnn_squares_0001.h5",
        "squares20200102T0000/mask_rcnn_squares_0012.h5",
        "squares20200102T0000/log.csv",
        "squares2020300102T0000/mask_rcnn_squares_0099.h5",
        "squares_b20210102T0000/mask_rcnn_squares_b_0099.h5",
        "my squares20210102T0000/mask_rcnn_my squares_0003.h5",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = checkpoints.find_last(tmp_path, "squares")
    assert found.parent.name == "squares20200102T0000"
    assert found.name == "mask_rcnn_squares_0012.h5"
    assert checkpoints.position_of(found) == ("squares20200102T0000", 12)
    found = checkpoints.find_last(tmp_path, "my squares")
    assert checkpoints.position_of(found) == ("my squares20210102T0000", 3)
    (tmp_path / "squares20220101T0000").mkdir()
    with pytest.raises(FileNotFoundError, match="ended before its first epoch"):
        checkpoints.find_last(tmp_path, "squares")


@pytest.mark.parametrize(
    "path", ["mask_rcnn_coco.h5", "a20200101T0000/last.h5", "a/mask_rcnn_a_0001.h5"]
)
def test_names_without_a_position(path: str) -> None:
    assert checkpoints.position_of(Path(path)) is None


def test_layers_that_learn(model: Detector) -> None:
    names = set(layer_names.layer_names(model).values())
    heads = {n for n in names if n.startswith(("mrcnn_", "rpn_", "fpn_"))}
    assert layer_names.select_layers(model, "heads") == heads
    fifth = {n for n in names if n.startswith(("res5", "bn5"))}
    assert len(fifth) == 8
    assert layer_names.select_layers(model, "5+") == heads | fifth
    fourth = {n for n in names if n.startswith(("res4", "bn4"))}
    assert layer_names.select_layers(model, "4+") == heads | fifth | fourth
    rest = {n for n in names if n.startswith(("res2", "bn2", "conv1", "bn_conv1"))}
    assert layer_names.select_layers(model, "3+") == names - rest
    assert layer_names.select_layers(model, "all") == names
    assert layer_names.select_layers(model, "mrcnn_mask|conv1") == {
        "mrcnn_mask",
        "conv1",
    }
    for wrong in ("head", "6+", "(", None):
        with pytest.raises(ValueError, match=r"layers must be one of 'heads', '3\+'"):
            layer_names.select_layers(model, wrong)  # type: ignore[arg-type]


def test_frozen_normalisation_stays_so(quick: None) -> None:
    model = new_model()
    learnable = list(model.trainable_variables)
    layer_names.set_trainable(model, learnable, {"mrcnn_mask"})
    assert {v.path for v in model.trainable_variables} == {
        "mask_head/class_kernel",
        "mask_head/class_bias",
    }
    names = layer_names.select_layers(model, "all")
    layer_names.set_trainable(model, learnable, names)
    assert list(model.trainable_variables) == learnable
    assert not [v.path for v in learnable if "gamma" in v.path]


def test_trained_normalisation_follows_its_layer(quick: None) -> None:
    model = new_model(TRAIN_BN=None)
    learnable = list(model.trainable_variables)
    names = layer_names.select_layers(model, "5+")
    layer_names.set_trainable(model, learnable, names)
    backbone = next(layer for layer in model.layers if hasattr(layer, "layers"))
    assert backbone.get_layer("layer4_0_bn1").trainable
    assert not backbone.get_layer("layer3_0_bn1").trainable
    paths = {v.path for v in model.trainable_variables}
    assert "layer4_0_bn1/gamma" in paths
    assert "layer4_0_bn1/moving_mean" not in paths
    assert "layer3_0_bn1/gamma" not in paths
