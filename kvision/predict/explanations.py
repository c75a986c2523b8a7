"""Photos in, what a Vision Transformer looked at out, drawn over the photo."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kvision.export.classifier import Classifier
from kvision.predict.classifications import Classifications, classify, prepare_photo
from kvision.viz import (
    attention_maps,
    attention_rollout,
    draw_heat,
    draw_kept,
    draw_patches,
    draw_similarity,
    fine_patches,
    kept_tokens,
    position_similarity,
    save_picture,
    seen_region,
)
from kvision.viz.transformer_graph import mixing_layers, pruning_layers

__all__ = ["Explanation", "explain"]

Array = np.ndarray
Region = tuple[float, float, float, float]


@dataclass(repr=False, eq=False)
class Explanation:
    """What a classifier saw in a photo, and what it looked at.

    Args:
        classification: scores of the classes, and the photo.
        block: name of the block of `attention`.
        head: number of its head; None is the mean of all.
        attention: (h, w) array: what the class token, or the mean patch, attends to.
        rollout: (h, w) array: of what the image is made through all blocks.
        region: x1, y1, x2, y2 of what the model saw, in pixels of the photo.
        patches: the same of its grid of patches, which may stick out.
        positions: (h, w, h, w) array: how alike the codes of positions are; None where
            the model has none.
        kept: name of each pruning -> (h, w) bool array; empty without.
        fine: (h, w) bool array: which patches are fine; None where all are alike.
    """

    classification: Classifications
    block: str
    head: int | None
    attention: Array
    rollout: Array
    region: Region
    patches: Region
    positions: Array | None
    kept: Mapping[str, Array]
    fine: Array | None

    def draw(self) -> dict[str, Image.Image]:
        """Draw all there is.

        Returns:
            "classes", "attention", "rollout", and "positions", "kept", "patches" where
            the model has them -> Pillow images in RGB.
        """
        photo = self.classification.image
        pictures = {
            "classes": self.classification.draw(),
            "attention": draw_heat(photo, self.attention, self.patches),
            "rollout": draw_heat(photo, self.rollout, self.patches),
        }
        if self.positions is not None:
            pictures["positions"] = draw_similarity(self.positions)
        if self.kept:
            pictures["kept"] = draw_kept(photo, self.kept, self.patches)
        if self.fine is not None:
            pictures["patches"] = draw_patches(photo, self.fine, self.patches)
        return pictures

    def plot(self, folder: str | Path, stem: str = "image") -> list[Path]:
        """Write each picture as PNG.

        Args:
            folder: where; it is made.
            stem: how the names of the files begin.

        Returns:
            The files.
        """
        return [
            save_picture(picture, Path(folder) / f"{stem}_{name}.png")
            for name, picture in self.draw().items()
        ]


def explain(
    model: Any,
    image: Any,
    block: int | str = -1,
    head: int | None = None,
    top: int = 5,
) -> Explanation:
    """Show what a Vision Transformer looked at.

    Args:
        model: a classifier of `kvision.models` with transformer blocks.
        image: one photo of any size: a path, an array (H, W) or (H, W, C) with values
            0..255 or a Pillow image.
        block: number (-1 is the last) or name of the block whose attention is shown.
        head: number of one of its heads; None for the mean of all.
        top: how many classes are named.

    Returns:
        The explanation.

    Raises:
        ValueError: the image cannot be read, the model has no such block or head, it is
            no classifier with transformer blocks, or it takes regions.
    """
    classifier = Classifier(model)
    if classifier.num_regions:
        raise ValueError(
            f"{classifier.name} takes regions, and what it looked at depends on them: "
            'explain knows images alone. A model with scorer="detail" and the same '
            "weights can be explained"
        )
    found = classify(model, [image], top=top)[0]
    pixels = prepare_photo(classifier, image).pixels
    (attention,) = attention_maps(model, pixels, [block])
    grid = attention.grid(head=head)[0]
    region = seen_region(
        found.image_size,
        classifier.image_size,
        classifier.resize,
        classifier.crop_fraction,
    )
    rolled = attention_rollout(model, pixels)[0]
    return Explanation(
        found,
        attention.name,
        head,
        grid,
        rolled,
        region,
        _patches(region, classifier.image_size, rolled.shape),
        _positions(model),
        _kept(model, pixels),
        fine_patches(model, pixels)[0] if mixing_layers(model) else None,
    )


def _positions(model: Any) -> Array | None:
    try:
        return position_similarity(model)
    except ValueError:  # its positions are no codes: a bias, a convolution
        return None


def _kept(model: Any, pixels: Array) -> dict[str, Array]:
    if not pruning_layers(model):
        return {}
    return {name: cells[0] for name, cells in kept_tokens(model, pixels).items()}


def _patches(
    region: Region, image_size: tuple[int, int], grid_size: tuple[int, ...]
) -> Region:
    """Enlarge the region of the input to that of its patches, filled up at the end."""
    x1, y1, x2, y2 = region
    height, width = (
        _filled_up(size, cells)
        for size, cells in zip(image_size, grid_size, strict=True)
    )
    return x1, y1, x1 + (x2 - x1) * width, y1 + (y2 - y1) * height


def _filled_up(size: int, cells: int) -> float:
    """Return the length of all patches in lengths of the input."""
    # Where the patch does not divide the input its side is a power of two.
    sides = [2**n for n in range(10) if -(-size // 2**n) == cells]
    return 1.0 if size % cells == 0 or not sides else sides[0] * cells / size
