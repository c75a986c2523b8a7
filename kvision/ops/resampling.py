"""Resizing of grids as products with constant matrices, by the rules of five sources.

A table of learned positions trained on one grid serves another once it is resampled.
The projects that publish such tables resample in five ways, and none of TensorFlow's
resizing ops equals all of them or compiles everywhere. A resize along one axis is a
matrix; along two, a product from both sides. The matrices are made here in NumPy, so
that a graph holds nothing but a constant.
"""

from collections.abc import Callable

import numpy as np

__all__ = ["INTERPOLATIONS", "resize_grid", "resize_matrix", "resize_patch_kernel"]

Array = np.ndarray
Kernel = Callable[[Array], Array]


def resize_matrix(old: int, new: int, interpolation: str) -> Array:
    """Make the matrix that resamples `old` cells to `new` ones along one axis.

    Args:
        old: cells there are, at least 1.
        new: cells wanted, at least 1.
        interpolation: a key of `INTERPOLATIONS`:

            - "bilinear_align_corners": first and last cells stay in place (Google's
              vision_transformer and big_vision: `scipy.ndimage.zoom` of order 1).
            - "bilinear": half-pixel centres, no antialiasing (timm for `.npz` files,
              DPT).
            - "bicubic_antialias": half-pixel centres, a = -0.5, the kernel widened
              when the grid shrinks (timm, Pillow).
            - "bicubic": half-pixel centres, a = -0.75, cells beyond the edge are those
              at the edge (PyTorch's `interpolate`: Hugging Face, mmpretrain,
              detectron2).
            - "bicubic_offset": the same with a scale of (new + 0.1) / old (the first
              releases of DINO and DINOv2).

    Returns:
        (new, old) float64 array; every row sums to 1.

    Raises:
        ValueError: for an unknown interpolation or a size below 1.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be one of {', '.join(map(repr, INTERPOLATIONS))}. "
            f"Received: {interpolation!r}"
        )
    if min(old, new) < 1:
        raise ValueError(f"Grids have at least 1 cell. Received: {old} and {new}")
    return INTERPOLATIONS[interpolation](old, new)


def resize_grid(grid: Array, size: tuple[int, int], interpolation: str) -> Array:
    """Resample a grid of vectors.

    Args:
        grid: (h, w, D) array.
        size: (height, width) wanted.
        interpolation: see `resize_matrix`.

    Returns:
        (height, width, D) array of the grid's dtype.
    """
    rows = resize_matrix(grid.shape[0], size[0], interpolation)
    columns = resize_matrix(grid.shape[1], size[1], interpolation)
    resampled = np.einsum("yh,xw,hwd->yxd", rows, columns, grid.astype(np.float64))
    return resampled.astype(grid.dtype)


def resize_patch_kernel(
    kernel: Array, size: tuple[int, int], interpolation: str
) -> Array:
    """Bring a patch embedding to patches of another size.

    Of all kernels of that size it is the one whose products with resized patches come
    closest to the products of the old kernel with the patches themselves.

    Args:
        kernel: (h, w, C, D) array.
        size: (height, width) wanted.
        interpolation: see `resize_matrix`.

    Returns:
        (height, width, C, D) array.

    Source: Beyer et al. 2023, FlexiViT, equation 5.
    """
    height, width, channels, embed_dim = kernel.shape
    matrix = np.kron(
        resize_matrix(height, size[0], interpolation),
        resize_matrix(width, size[1], interpolation),
    )
    rows = kernel.reshape(height * width, channels * embed_dim)
    return (np.linalg.pinv(matrix.T) @ rows).reshape(*size, channels, embed_dim)


def _bilinear_align_corners(old: int, new: int) -> Array:
    positions = np.linspace(0, old - 1, new) if new > 1 else np.zeros(1)
    return _clamped(positions, old, _triangle, 1)


def _bilinear(old: int, new: int) -> Array:
    return _clamped(_centres(old, new, old / new), old, _triangle, 1)


def _bicubic(old: int, new: int) -> Array:
    return _clamped(_centres(old, new, old / new), old, _cubic(-0.75), 2)


def _bicubic_offset(old: int, new: int) -> Array:
    # The source passes (new + 0.1) / old as a factor, against rounding to one cell
    # less, and PyTorch samples with that factor.
    return _clamped(_centres(old, new, old / (new + 0.1)), old, _cubic(-0.75), 2)


def _bicubic_antialias(old: int, new: int) -> Array:
    """Weigh the cells that lie in the image only, and normalise, as Pillow does."""
    step = old / new
    stretch = max(step, 1.0)
    distances = np.arange(old) - _centres(old, new, step)[:, None]
    weights = _cubic(-0.5)(distances / stretch)
    return weights / weights.sum(axis=1, keepdims=True)


def _centres(old: int, new: int, step: float) -> Array:
    """Return where the centres of new cells lie among the centres of old ones."""
    return (np.arange(new) + 0.5) * step - 0.5


def _clamped(positions: Array, old: int, kernel: Kernel, radius: int) -> Array:
    """Weigh the cells around positions; what lies beyond the edge is the edge."""
    matrix = np.zeros((len(positions), old))
    first = np.floor(positions).astype(int)
    for offset in range(1 - radius, radius + 1):
        cells = first + offset
        weights = kernel(positions - cells)
        np.add.at(
            matrix, (np.arange(len(positions)), np.clip(cells, 0, old - 1)), weights
        )
    return matrix


def _triangle(distances: Array) -> Array:
    return np.maximum(1 - np.abs(distances), 0)


def _cubic(a: float) -> Kernel:
    """Return the cubic convolution kernel (Keys 1981, equation 4)."""

    def kernel(distances: Array) -> Array:
        x = np.abs(distances)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((x - 5) * x + 8) * x * a - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

    return kernel


INTERPOLATIONS: dict[str, Callable[[int, int], Array]] = {
    "bilinear_align_corners": _bilinear_align_corners,
    "bilinear": _bilinear,
    "bicubic_antialias": _bicubic_antialias,
    "bicubic": _bicubic,
    "bicubic_offset": _bicubic_offset,
}
