"""kvision's Mask R-CNN with the weights that the recorder gave torchvision's."""

import ast
import tempfile
from pathlib import Path

import keras
import numpy as np
from safetensors.numpy import save_file

import kvision
from kvision.weights.places import Place
from kvision.weights.torchvision import places
from tests.parity.compare import section
from tests.parity.seeded import weights_for

Arrays = dict[str, np.ndarray]


def seeded_mask_rcnn(
    recorded: Arrays, num_classes: int, **arguments: object
) -> keras.Model:
    """Build the model and load torchvision's weights from a file, as a user would."""
    names = [f"class {label}" for label in range(num_classes)]
    arguments = {"freeze_batch_norm": True, **arguments}
    model = kvision.models.mask_rcnn("resnet50", class_names=names, **arguments)
    load(model, seeded_tensors(recorded))
    return model


def seeded_tensors(recorded: Arrays) -> Arrays:
    """Make torchvision's state_dict; two biases are recorded, all else is seeded."""
    shapes = state_dict_shapes(section(recorded, "state_dict"))
    tensors = {name: weights_for(name, shape) for name, shape in shapes.items()}
    prefix = "weights/"
    biases = {n: values for n, values in recorded.items() if n.startswith(prefix)}
    return tensors | {n.removeprefix(prefix): values for n, values in biases.items()}


def state_dict_shapes(recorded: Arrays) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes that torchvision's state_dict had."""
    pairs = zip(recorded["names"].tolist(), recorded["shapes"].tolist(), strict=True)
    return {name: ast.literal_eval(shape) for name, shape in pairs}


def load(model: keras.Model, tensors: Arrays) -> None:
    """Write a file and load it: every tensor has to be used, every weight set."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "torchvision.safetensors"
        save_file(tensors, path)
        report = kvision.weights.load(model, path)
    assert report.source == "torchvision"
    unused = {name for name in tensors if name.endswith("num_batches_tracked")}
    assert set(report.unused) == unused
    assert set(report.matched) == set(tensors) - unused
    assert report.resized == report.fresh == ()


def places_of(model: keras.Model) -> dict[str, Place]:
    """Map torchvision's names to where the tensors go; each is one place."""
    return {place.names[0]: place for place in places(model, {})}
