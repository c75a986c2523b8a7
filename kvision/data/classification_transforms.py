"""Augmentation for classifiers, in TensorFlow ops without state.

Three kinds, which stand in a list in the order in which they act:

- `RandomResizedCrop` cuts a part out of the photo itself and brings it to the input
  size. It comes first. Without it photos are prepared as for prediction.
- changes of the image, as (sample, seed) -> sample: those of this file,
  `kvision.data.RandAugment`, the flips, turns and colours of detectors
  (`HorizontalFlip`, `Rotate90`, `Photometric`, ...) and functions of your own. A sample
  is a dict: `images` (H, W, C) uint8 0..255 and `labels` () int32. They see images of
  the input size.
- `MixUp`, `CutMix` and `MixUpOrCutMix` (`kvision.data.mixing`) work on batches, so
  they come last.

Seeds are (2,) int32 tensors; the same seed gives the same result.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from kvision.data import pixel_ops
from kvision.data.draws import fold, uniform, whole
from kvision.data.mixing import CutMix, MixUp, MixUpOrCutMix
from kvision.data.rand_augment import RandAugment
from kvision.data.transforms import HorizontalFlip
from kvision.data.warp import Sample
from kvision.ops.preparation import Interpolation

__all__ = [
    "ColorJitter",
    "RandomErasing",
    "RandomPaddedCrop",
    "RandomResizedCrop",
    "ThreeAugment",
    "named_transforms",
]

Augment = bool | Literal["light", "deit", "three"] | Sequence[Any]

_TRIES = 10
_MEAN = (123.675, 116.28, 103.53)  # of ImageNet, in 0..255
_STD = (58.395, 57.12, 57.375)


def named_transforms(augment: Augment) -> list[Any]:
    """Return the transforms that `augment` stands for.

    Args:
        augment: False for none; a list of transforms for themselves; or the name of a
            set, each made for images that have a left and a right but no hidden text:

            - "light" (and True): part of 35 to 100 % of the photo, mirrored half of the
              time, and mild changes of brightness, contrast and saturation. For
              fine-tuning and for small data.
            - "deit": part of 8 to 100 %, mirrored, RandAugment, a quarter of the images
              with a rectangle erased, MixUp (0.8) or CutMix (1.0). Touvron et al. 2021,
              Table 9; `label_smoothing=0.1` and `repeats=3` complete the recipe.
            - "three": part of 8 to 100 %, mirrored, 3-Augment and changes of colour,
              MixUp (0.8) or CutMix (1.0). Touvron et al. 2022, DeiT III, Table 1,
              ImageNet-1k.

    Returns:
        List of transforms.
    """
    if isinstance(augment, str):
        if augment not in _SETS:
            raise ValueError(
                f"augment must be False, one of {sorted(_SETS)} or a list of "
                f"transforms. Received: augment={augment!r}"
            )
        return _SETS[augment]()
    if isinstance(augment, bool):
        return _SETS["light"]() if augment else []
    return list(augment)


@dataclass(frozen=True)
class RandomResizedCrop:
    """Cut a random part out and bring it to the input size, squashed a little.

    Args:
        scale: smallest and largest part of the photo's area.
        ratio: smallest and largest width / height of the part.
        interpolation: "bicubic" or "bilinear", widened where the image shrinks.

    torchvision's rule: ten draws, then the largest part in the middle of a ratio
    within `ratio`. Szegedy et al. 2015, Going Deeper with Convolutions, section 6.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0.0 < low <= high:
                raise ValueError(
                    f"{name} must be (smallest, largest), above 0. Received: "
                    f"{name}={(low, high)}"
                )

    def window(self, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Draw the part.

        Args:
            size: (2,) int32 tensor: height and width of the photo in pixels.
            seed: (2,) int32 tensor.

        Returns:
            (4,) int32 tensor: top, left, height, width.
        """
        whole_size = tf.cast(size, tf.float64)
        area = whole_size[0] * whole_size[1]
        sides, fits = _sides(
            fold(seed, 1), area, self.scale, self.ratio, lambda s: s <= size
        )
        chosen = tf.where(
            tf.reduce_any(fits),
            sides[tf.argmax(fits)],
            self._largest(whole_size),
        )
        rest = size - chosen
        first = tf.where(tf.reduce_any(fits), whole(fold(seed, 2), rest), rest // 2)
        return tf.concat([first, chosen], axis=0)

    def _largest(self, size: tf.Tensor) -> tf.Tensor:
        height, width = size[0], size[1]
        low, high = self.ratio
        rows = tf.round(tf.minimum(width / low, height))
        columns = tf.round(tf.minimum(height * high, width))
        return tf.maximum(tf.cast(tf.stack([rows, columns]), tf.int32), 1)


@dataclass(frozen=True)
class RandomPaddedCrop:
    """Pad the image and cut its size out again at a random place: for small images.

    Args:
        padding: pixels on each side; 4 is usual for 32 x 32.
        mode: "reflect" mirrors the image into its padding, "constant" leaves it 0.
    """

    padding: int = 4
    mode: Literal["reflect", "constant"] = "reflect"

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Shift `images` by up to `padding` pixels each way."""
        image = sample["images"]
        around = [[self.padding] * 2, [self.padding] * 2, [0, 0]]
        padded = tf.pad(image, around, self.mode.upper())
        first = whole(seed, tf.fill([2], 2 * self.padding))
        start = tf.concat([first, [0]], axis=0)
        return {**sample, "images": tf.slice(padded, start, tf.shape(image))}


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue, in random order.

    Args:
        brightness: largest relative change; 0.4 multiplies by 0.6 to 1.4.
        contrast: largest relative change of the distance from the mean luma.
        saturation: largest relative change of the distance from grey.
        hue: largest turn of the colour circle, as a part of it, up to 0.5.

    torchvision's transform of this name, on Pillow's images.
    """

    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.0

    def __post_init__(self) -> None:
        amounts = (self.brightness, self.contrast, self.saturation, self.hue)
        if min(amounts) < 0.0 or self.hue > 0.5:
            raise ValueError(
                f"Changes must be at least 0, that of hue at most 0.5. Received: {self}"
            )

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Change the colours of `images`."""
        image = sample["images"]
        changes = self._changes(fold(seed, 1))
        if not changes:
            return sample
        draws = tf.random.stateless_uniform([len(changes)], fold(seed, 2))
        for number in tf.unstack(tf.argsort(draws)):
            branches = [functools.partial(change, image) for change in changes]
            image = tf.ensure_shape(tf.switch_case(number, branches), image.shape)
        return {**sample, "images": image}

    def _changes(self, seed: tf.Tensor) -> list[Callable[[tf.Tensor], tf.Tensor]]:
        ops = (
            (self.brightness, pixel_ops.brightness),
            (self.contrast, pixel_ops.contrast),
            (self.saturation, pixel_ops.color),
        )
        draws = uniform(seed, 4, -1.0, 1.0)
        changes: list[Callable[[tf.Tensor], tf.Tensor]] = []
        for (amount, op), draw in zip(ops, draws[:3], strict=True):
            if amount:
                factor = tf.maximum(1.0 + amount * draw, 0.0)
                changes.append(functools.partial(op, factor=factor))
        if self.hue:
            part = self.hue * draws[3]
            changes.append(functools.partial(pixel_ops.turn_hue, part=part))
        return changes


@dataclass(frozen=True)
class ThreeAugment:
    """Make the image grey, or solarise it, or blur it; each as likely.

    Args:
        blur: smallest and largest radius (standard deviation) of the blur in pixels,
            up to 2.

    Touvron et al. 2022, DeiT III: Revenge of the ViT, section 3.
    """

    blur: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        if not 0.0 < self.blur[0] <= self.blur[1] <= 2.0:
            raise ValueError(
                "blur must be (smallest, largest) above 0 and up to 2 pixels. "
                f"Received: blur={self.blur}"
            )

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Change `images`."""
        image = sample["images"]
        (radius,) = uniform(fold(seed, 1), 1, *self.blur)
        changed = tf.switch_case(
            tf.random.stateless_uniform([], seed, 0, 3, tf.int32),
            [
                lambda: tf.broadcast_to(pixel_ops.grey(image), tf.shape(image)),
                lambda: pixel_ops.solarize(image),
                lambda: pixel_ops.gaussian_blur(image, radius),
            ],
        )
        return {**sample, "images": tf.ensure_shape(changed, image.shape)}


@dataclass(frozen=True)
class RandomErasing:
    """Replace a random rectangle by noise, or by one colour.

    Args:
        probability: of doing so.
        area: smallest and largest part of the image's area.
        ratio: smallest and largest height / width of the rectangle.
        mode: "pixel" draws each value from a normal distribution of the mean and
            standard deviation below, cut to 0..255; "const" takes the mean.
        mean: of each channel in 0..255; by default that of ImageNet.
        std: of each channel.

    Zhong et al. 2017, Random Erasing Data Augmentation; timm erases after normalising,
    this before, which is why it knows mean and standard deviation.
    """

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)
    mode: Literal["pixel", "const"] = "pixel"
    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD

    def __post_init__(self) -> None:
        if self.mode not in ("pixel", "const"):
            raise ValueError(
                f'mode must be "pixel" or "const". Received: mode={self.mode!r}'
            )

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Erase a part of `images`."""
        image = sample["images"]
        (chance,) = uniform(fold(seed, 1), 1)
        erased = tf.cond(
            chance < self.probability,
            lambda: self._erase(image, seed),
            lambda: image,
        )
        return {**sample, "images": tf.ensure_shape(erased, image.shape)}

    def _erase(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        size = tf.shape(image)[:2]
        area = tf.cast(size[0] * size[1], tf.float64)
        ratio = (1.0 / self.ratio[1], 1.0 / self.ratio[0])  # height / width here
        sides, fits = _sides(fold(seed, 2), area, self.area, ratio, lambda s: s < size)
        chosen = sides[tf.argmax(fits)]
        first = whole(fold(seed, 3), tf.maximum(size - chosen, 0))
        mask = pixel_ops.box_mask(size, first, first + chosen)
        # Ten draws without one that fits erase nothing.
        mask &= tf.reduce_any(fits)
        return tf.where(mask, self._filling(image, fold(seed, 4)), image)

    def _filling(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        channels = image.shape[-1]
        values = tf.constant(self.mean[:channels])
        if self.mode == "pixel":
            noise = tf.random.stateless_normal(tf.shape(image), seed)
            values += noise * tf.constant(self.std[:channels])
        return tf.cast(tf.clip_by_value(tf.round(values), 0.0, 255.0), tf.uint8)


def _sides(
    seed: tf.Tensor,
    area: tf.Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    fits: Callable[[tf.Tensor], tf.Tensor],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw ten rectangles of random area and log-uniform width / height.

    Returns:
        (10, 2) int32 heights and widths, and (10,) whether each fits.
    """
    draws = tf.random.stateless_uniform([2, _TRIES], seed, dtype=tf.float64)
    part = scale[0] + draws[0] * (scale[1] - scale[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = tf.exp(low + draws[1] * (high - low))
    sides = tf.stack([tf.sqrt(area * part / aspect), tf.sqrt(area * part * aspect)], 1)
    sides = tf.cast(tf.round(sides), tf.int32)
    return sides, tf.reduce_all(fits(sides) & (sides > 0), axis=1)


def _mixed() -> MixUpOrCutMix:
    return MixUpOrCutMix(MixUp(0.8), CutMix(1.0), switch_probability=0.5)


_SETS: dict[str, Callable[[], list[Any]]] = {
    "light": lambda: [
        RandomResizedCrop(scale=(0.35, 1.0)),
        HorizontalFlip(),
        ColorJitter(0.2, 0.2, 0.2),
    ],
    "deit": lambda: [
        RandomResizedCrop(),
        HorizontalFlip(),
        RandAugment(),
        RandomErasing(),
        _mixed(),
    ],
    "three": lambda: [
        RandomResizedCrop(),
        HorizontalFlip(),
        ThreeAugment(),
        ColorJitter(0.3, 0.3, 0.3),
        _mixed(),
    ],
}
