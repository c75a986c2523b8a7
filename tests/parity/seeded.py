"""Weights and images made from names and seeds, so that none need be stored.

The recorder (torch) and the parity tests (Keras) make the same numbers here. Only
`PCG64.random_raw` is used, whose stream numpy promises never to change; the rest is
plain arithmetic.

The scales keep a random network alive: activations near 1 at every depth,
batch-norm variances small enough for a wrong epsilon to show, heads strong enough that
hundreds of objects are detected.
"""

import math
import zlib

import numpy as np

# Variance of a backbone convolution's output, before batch normalisation. Small, so
# that epsilon 1e-5 in place of 0 moves the features by far more than the tolerance.
# In the heads of v2 it is 1.
NORM_VARIANCE = 0.01

# Standard deviation of weights times sqrt(fan in), by part of the name; the rest has
# He's sqrt(2).
GAIN = {
    "inner_blocks": 0.1,
    "layer_blocks": 1.0,
    "fc6": 2.0,
    "fc7": 2.0,
    "box_head.5": 2.0,
    "cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.3,
    "cls_score": 3.0,
    "box_predictor.bbox_pred": 1.0,
    "mask_fcn_logits": 4.0,
}


def uniform(name: str, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Draw float32 numbers in [low, high): a pure function of the name."""
    size = math.prod(shape)
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw((size + 1) // 2)
    halves = raw.astype("<u8").view("<u4")[:size]
    unit = halves.astype(np.float64) / 2.0**32
    return (low + (high - low) * unit).astype(np.float32).reshape(shape)


def weights_for(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make one tensor of a torchvision R-CNN.

    Args:
        name: torchvision's name, such as "backbone.body.conv1.weight".
        shape: torch's shape: convolutions OIHW, linear layers (out, in).

    Returns:
        float32 array of that shape.
    """
    if len(shape) == 1:
        low, high = _vector_range(*name.rsplit(".", 1))
        return uniform(name, shape, low, high)
    gain = next((g for part, g in GAIN.items() if part in name), math.sqrt(2.0))
    if ".body." in name:
        gain *= math.sqrt(NORM_VARIANCE)
    # A transposed convolution is (in, out, kh, kw), each output sees one tap of it.
    fan_in = shape[0] if "conv5_mask" in name else math.prod(shape[1:])
    limit = gain * math.sqrt(3.0 / fan_in)
    return uniform(name, shape, -limit, limit)


def _vector_range(module: str, kind: str) -> tuple[float, float]:
    """Choose the range of a bias or of a vector of a batch normalisation."""
    variance = NORM_VARIANCE if ".body." in module else 1.0
    if kind == "running_mean":
        return -0.3 * math.sqrt(variance), 0.3 * math.sqrt(variance)
    if kind == "running_var":
        return 0.4 * variance, 1.6 * variance
    if kind == "weight":  # small where a block joins its shortcut
        return (0.1, 0.3) if module.endswith("bn3") else (0.7, 1.3)
    # Sparse units, so that RoIs differ from each other.
    if module.endswith(("fc7", "box_head.5")):
        return -0.9, -0.3
    return -0.2, 0.2


def image_for(seed: int, image_size: tuple[int, int]) -> np.ndarray:
    """Draw coloured rectangles and noise: (height, width, 3) uint8."""
    height, width = image_size
    image = np.empty((height, width, 3), np.float32)
    image[:] = uniform(f"background {seed}", (3,), 60, 180)
    for x, y, w, h, *colour in uniform(f"rectangles {seed}", (40, 7), 0, 1):
        half_w, half_h = int(4 + 60 * w * w), int(4 + 60 * h * h)
        column, row = int(x * width), int(y * height)
        rows = slice(max(0, row - half_h), row + half_h)
        image[rows, max(0, column - half_w) : column + half_w] = np.multiply(
            colour, 255
        )
    image += uniform(f"noise {seed}", image.shape, -20, 20)
    return np.clip(image, 0, 255).astype(np.uint8)


def images_for(count: int, image_size: tuple[int, int]) -> np.ndarray:
    """Draw a batch: (count, height, width, 3) uint8."""
    return np.stack([image_for(seed, image_size) for seed in range(count)])


def sample(array: np.ndarray, count: int = 500) -> np.ndarray:
    """Pick values all over an array, always the same ones for the same shape."""
    flat = np.asarray(array).reshape(-1)
    if flat.size <= count:
        return flat
    return flat[(np.arange(count, dtype=np.int64) * 1_000_003) % flat.size]


def summary(array: np.ndarray) -> np.ndarray:
    """Measure a whole array: mean, root mean square, largest magnitude (float64)."""
    array = np.asarray(array, np.float64)
    return np.array([array.mean(), np.sqrt((array**2).mean()), np.abs(array).max()])
