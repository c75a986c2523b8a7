"""kvision's Mask R-CNN with the weights that the recorder gave torchvision's."""

from typing import Any

import keras
import numpy as np

import kvision
from tests.parity.seeded import weights_for
from tests.parity.torchvision_map import load


def seeded_mask_rcnn(
    recorded: dict[str, np.ndarray], num_classes: int, **arguments: Any
) -> keras.Model:
    """Build the model; two biases are recorded, all other weights are seeded."""
    names = [f"class {label}" for label in range(num_classes)]
    model = kvision.models.mask_rcnn(
        "resnet50", class_names=names, freeze_batch_norm=True, **arguments
    )

    def tensor_of(name: str, shape: tuple[int, ...]) -> np.ndarray:
        stored = recorded.get(f"weights/{name}")
        return weights_for(name, shape) if stored is None else stored

    load(model, tensor_of)
    return model
