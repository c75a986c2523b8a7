"""Generated pictures of circles, rectangles and triangles, with exact masks.

For demos, tests and teaching: nothing to download, and every label is right. Shapes
are drawn one over another on a textured background; a mask holds what is still seen.
Everything follows from the seed and the number of the image.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from kvision.data.images import Resize
from kvision.data.masks import crop_pixels
from kvision.data.pipeline import Options, make_dataset

__all__ = ["shapes", "shapes_coco"]

CLASS_NAMES = ("circle", "rectangle", "triangle")

_TRIES = 30  # places tried for a shape before the picture goes without it
_MIN_SEEN = 0.4  # part of a shape that later ones must leave to be seen


@dataclass(frozen=True)
class Picture:
    """What is on one generated image.

    Attributes:
        labels: (G,) int32, indices into `CLASS_NAMES`.
        boxes: (G, 4) float32, extents of the masks in pixels.
        masks: (G, H, W) bool, what is seen of each shape.
    """

    labels: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray


def shapes(
    num_images: int = 200,
    *,
    image_size: tuple[int, int] = (128, 128),
    batch_size: int = 4,
    min_shapes: int = 1,
    max_shapes: int = 8,
    min_size: int = 10,
    max_size: int = 60,
    max_iou: float = 0.5,
    masks: bool = True,
    mask_size: int = 56,
    augment: bool | Sequence[Any] = False,
    shuffle: bool | None = None,
    seed: int = 0,
    data_seed: int | None = None,
    first_epoch: int | None = None,
    first_step: int = 0,
    drop_remainder: bool | None = None,
    num_shards: int = 1,
    shard_index: int = 0,
    resize: Resize = "pad",
    cache: bool | str | os.PathLike[str] = True,
) -> tf.data.Dataset:
    """Make a dataset of generated pictures of shapes.

    Args:
        num_images: how many there are.
        image_size: (height, width) in pixels.
        batch_size: images in a batch.
        min_shapes: fewest shapes in an image, where there is room for them.
        max_shapes: most shapes in an image.
        min_size: smallest side of the box of a whole shape, in pixels.
        max_size: largest side of the box of a whole shape, in pixels.
        max_iou: largest IoU of the boxes of two whole shapes.
        masks: whether to give masks.
        mask_size: as of `kvision.data.coco`, and so are the arguments below.
        augment: False, True or a list of transforms.
        shuffle: whether every epoch has another order.
        seed: of order and augmentation, and of the pictures.
        data_seed: of the pictures, if they shall not follow `seed`. Another one gives
            other pictures: take one for training and one for validation.
        first_epoch: makes the dataset endless.
        first_step: step of the first epoch to begin with.
        drop_remainder: whether an incomplete batch is left out.
        num_shards: number of workers that share the data.
        shard_index: which of them this is.
        resize: has no effect on images that have the size of the model.
        cache: True keeps the pictures in memory.

    Returns:
        Dataset of (images, targets) as `kvision.data.coco` makes it, with the same
        attributes and `annotations`: the content of a COCO json, for scores.

    Raises:
        ValueError: an argument does not fit.
    """
    options = Options(
        image_size=image_size,
        batch_size=batch_size,
        augment=augment,
        shuffle=shuffle,
        seed=seed,
        first_epoch=first_epoch,
        first_step=first_step,
        max_instances=max_shapes,
        mask_size=mask_size,
        resize=resize,
        cache=cache,
        num_shards=num_shards,
        shard_index=shard_index,
        drop_remainder=drop_remainder,
    )
    artist = _Artist(
        seed if data_seed is None else data_seed,
        tuple(image_size),
        (min_shapes, max_shapes),
        (min_size, max_size),
        max_iou,
    )
    source = _ShapesSource(artist, num_images, masks)
    dataset = make_dataset(source, options)
    dataset.annotations = _annotations(source)
    return dataset


def shapes_coco(
    folder: str | os.PathLike[str],
    num_images: int = 200,
    *,
    name: str = "train",
    image_size: tuple[int, int] = (128, 128),
    min_shapes: int = 1,
    max_shapes: int = 8,
    min_size: int = 10,
    max_size: int = 60,
    max_iou: float = 0.5,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write generated pictures as a COCO folder: `images/*.png` and `NAME.json`.

    They are the pictures of `shapes` with the same seed.

    Args:
        folder: where to write; made if it does not exist.
        num_images: how many.
        name: of the set, such as "train" or "val".
        image_size: and the rest as of `shapes`.
        min_shapes: fewest shapes in an image.
        max_shapes: most shapes in an image.
        min_size: smallest side of a shape's box in pixels.
        max_size: largest side of a shape's box in pixels.
        max_iou: largest IoU of the boxes of two shapes.
        seed: of the pictures.

    Returns:
        Path of the json and of the folder of images.
    """
    counts, sizes = (min_shapes, max_shapes), (min_size, max_size)
    artist = _Artist(seed, tuple(image_size), counts, sizes, max_iou)
    source = _ShapesSource(artist, num_images, True)
    content = _annotations(source, prefix=f"{name}_")
    images = Path(folder) / "images"
    images.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(content["images"]):
        picture = Image.fromarray(source.load_image(index))
        picture.save(images / image["file_name"])
    path = Path(folder) / f"{name}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path, images


@dataclass(frozen=True)
class _Artist:
    """Draws image number n of a seed."""

    seed: int
    image_size: tuple[int, ...]
    counts: tuple[int, int]
    sizes: tuple[int, int]
    max_iou: float

    def __post_init__(self) -> None:
        least, most = self.counts
        small, large = self.sizes
        if not 1 <= least <= most:
            raise ValueError(
                "Expected 1 <= min_shapes <= max_shapes. Received: "
                f"min_shapes={least}, max_shapes={most}"
            )
        if not 4 <= small <= large:
            raise ValueError(
                "Expected 4 <= min_size <= max_size. Received: "
                f"min_size={small}, max_size={large}"
            )
        if small > min(self.image_size):
            raise ValueError(
                f"min_size={small} does not fit an image of (height, width) "
                f"{self.image_size}"
            )

    def place(self, index: int) -> Picture:
        """Choose the shapes of an image and find what is seen of each."""
        random = np.random.default_rng((self.seed, index, 0))
        wanted = int(random.integers(self.counts[0], self.counts[1] + 1))
        labels: list[int] = []
        whole: list[np.ndarray] = []
        masks: list[np.ndarray] = []
        for _ in range(wanted):
            for _ in range(_TRIES):
                label = int(random.integers(len(CLASS_NAMES)))
                mask = self._shape(CLASS_NAMES[label], random)
                if self._fits(mask, whole, masks):
                    masks = [seen & ~mask for seen in masks]
                    labels.append(label)
                    whole.append(mask)
                    masks.append(mask)
                    break
        stacked = np.stack(masks)
        return Picture(np.array(labels, np.int32), _extents(stacked), stacked)

    def paint(self, index: int, picture: Picture) -> np.ndarray:
        """Paint an image: background, shapes, noise; (H, W, 3) uint8."""
        random = np.random.default_rng((self.seed, index, 1))
        height, width = self.image_size
        canvas = _texture(random, height, width)
        for mask in picture.masks:
            color = 255.0 * random.random(3)
            # A shape in the colour of what is behind it could not be seen by anyone.
            behind = canvas[mask].mean(axis=0)
            if np.abs(color - behind).max() < 60.0:
                color = np.where(behind > 127.0, behind - 90.0, behind + 90.0)
            canvas[mask] = color + 40.0 * (random.random() - 0.5)
        canvas += 24.0 * (random.random(canvas.shape) - 0.5)
        return np.rint(canvas).clip(0, 255).astype(np.uint8)

    def _shape(self, kind: str, random: np.random.Generator) -> np.ndarray:
        """Rasterise a shape at a random place: the pixels whose centres it covers."""
        height, width = self.image_size
        small, large = self.sizes[0], min(self.sizes[1], height, width)
        across = small + random.random(2) * (large - small)
        angle = math.tau * random.random()
        spot = random.random(2)
        if kind == "circle":
            across[1] = across[0]
            corners = None
            half = across / 2
        else:
            corners = _turned_corners(kind, across, angle, (small, large))
            half = np.abs(corners).max(axis=0)
        centre = half + spot * np.maximum([width, height] - 2 * half, 0.0)
        x = np.arange(width)[None, :] + 0.5 - centre[0]
        y = np.arange(height)[:, None] + 0.5 - centre[1]
        if corners is None:
            return x * x + y * y <= half[0] ** 2
        # Inside a convex shape every edge has the point on the same side.
        inside = np.ones((height, width), bool)
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            inside &= (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) >= 0
        return inside

    def _fits(
        self, mask: np.ndarray, whole: list[np.ndarray], seen: list[np.ndarray]
    ) -> bool:
        """Whether a shape covers pixels and leaves enough of those before it."""
        if not mask.any():
            return False
        box = _extents(mask[None])[0]
        for before, rest in zip(whole, seen, strict=True):
            if _iou(box, _extents(before[None])[0]) > self.max_iou:
                return False
            if (rest & ~mask).sum() < _MIN_SEEN * before.sum():
                return False
        return True


class _ShapesSource:
    """Generated pictures, by number."""

    def __init__(self, artist: _Artist, num_images: int, masks: bool) -> None:
        if num_images < 1:
            raise ValueError(
                f"num_images must be at least 1. Received: num_images={num_images}"
            )
        self.artist = artist
        self.class_names = list(CLASS_NAMES)
        self.category_ids = [1, 2, 3]
        self.image_ids = list(range(1, num_images + 1))
        self.has_masks = masks
        self.pictures = [_pack(artist.place(index)) for index in range(num_images)]

    def __len__(self) -> int:
        return len(self.image_ids)

    def picture(self, index: int) -> Picture:
        labels, boxes, packed = self.pictures[index]
        shape = (len(labels), *self.artist.image_size)
        bits = np.unpackbits(packed, count=int(np.prod(shape)))
        return Picture(labels, boxes, bits.reshape(shape).astype(bool))

    def load_image(self, index: int) -> np.ndarray:
        return self.artist.paint(index, self.picture(index))

    def load_objects(
        self, index: int, cells: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        picture = self.picture(index)
        grids = np.zeros((len(picture.labels), cells, cells), np.uint8)
        if self.has_masks:
            for row, (mask, box) in enumerate(
                zip(picture.masks, picture.boxes, strict=True)
            ):
                x1, y1, x2, y2 = box.astype(int)
                grids[row] = crop_pixels(
                    mask[y1:y2, x1:x2], (0.0, 0.0, x2 - x1, y2 - y1), cells
                )
        return picture.boxes, picture.labels, grids

    def largest_count(self) -> int:
        return max(len(labels) for labels, _, _ in self.pictures)

    def fingerprint(self, index: int) -> str:
        artist = self.artist
        facts = (artist.seed, *artist.image_size, *artist.counts, *artist.sizes)
        return "-".join(map(str, ("shapes", *facts, artist.max_iou, index)))


def _pack(picture: Picture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep a picture's masks as bits: thousands of pictures fit in memory."""
    return picture.labels, picture.boxes, np.packbits(picture.masks)


def _annotations(source: _ShapesSource, prefix: str = "") -> dict[str, Any]:
    """Describe the pictures as the content of a COCO instances file."""
    height, width = source.artist.image_size
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, image_id in enumerate(source.image_ids):
        file_name = f"{prefix}{image_id:05d}.png"
        images.append(
            {"id": image_id, "file_name": file_name, "height": height, "width": width}
        )
        picture = source.picture(index)
        rles = coco_mask.encode(
            np.asfortranarray(picture.masks.transpose(1, 2, 0), np.uint8)
        )
        for label, box, rle in zip(picture.labels, picture.boxes, rles, strict=True):
            x1, y1, x2, y2 = box.tolist()
            counts = rle["counts"].decode("ascii")
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(label) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(coco_mask.area(rle)),
                    "iscrowd": 0,
                    "segmentation": {"size": [height, width], "counts": counts},
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _turned_corners(
    kind: str, across: np.ndarray, angle: float, sizes: tuple[int, int]
) -> np.ndarray:
    """Corners about the centre of their box, in turn, clockwise on the screen."""
    if kind == "triangle":
        turns = angle + math.tau * np.arange(3) / 3
        corners = np.stack([np.cos(turns), np.sin(turns)], axis=1) * across
    else:
        x, y = across / 2
        flat = np.array([[-x, -y], [x, -y], [x, y], [-x, y]])
        cos, sin = math.cos(angle), math.sin(angle)
        corners = flat @ np.array([[cos, sin], [-sin, cos]])
    low, high = corners.min(axis=0), corners.max(axis=0)
    corners = corners - (low + high) / 2
    extent = high - low
    # Turning changed the box: scale it into the sizes that were asked for.
    wanted = np.clip(extent, *sizes)
    return corners * (wanted / extent)


def _texture(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Paint a background: a slope of colour with soft blotches and fine stripes."""
    corners = 40.0 + 150.0 * random.random((2, 2, 3))
    coarse = 70.0 * (random.random((7, 7, 3)) - 0.5)
    canvas = _enlarge(corners, height, width) + _enlarge(coarse, height, width)
    angle, period = math.tau * random.random(), 4.0 + 16.0 * random.random()
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    waves = np.sin((x * math.cos(angle) + y * math.sin(angle)) * math.tau / period)
    return canvas + (25.0 * random.random() * waves)[..., None]


def _enlarge(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolate a small (h, w, 3) grid over an image."""

    def weights(pixels: int, nodes: int) -> np.ndarray:
        position = np.linspace(0.0, nodes - 1.0, pixels)[:, None]
        return np.maximum(1.0 - np.abs(position - np.arange(nodes)), 0.0)

    rows, columns = weights(height, len(grid)), weights(width, grid.shape[1])
    return np.einsum("yh,hwc,xw->yxc", rows, grid, columns, optimize=True)


def _extents(masks: np.ndarray) -> np.ndarray:
    """Find the boxes of (G, H, W) masks that are not empty; (G, 4) float32."""
    columns: np.ndarray = np.any(masks, axis=1)
    rows: np.ndarray = np.any(masks, axis=2)
    x1, y1 = columns.argmax(axis=1), rows.argmax(axis=1)
    x2 = columns.shape[1] - columns[:, ::-1].argmax(axis=1)
    y2 = rows.shape[1] - rows[:, ::-1].argmax(axis=1)
    return np.stack([x1, y1, x2, y2], axis=1).astype(np.float32)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = float(np.prod(np.maximum(high - low, 0.0)))
    total = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]))
    return both / (total - both)
