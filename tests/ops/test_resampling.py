"""Resizing of grids against the originals (tests/parity/record_resampling.py)."""

from pathlib import Path

import numpy as np
import pytest

from kvision.ops.resampling import (
    INTERPOLATIONS,
    resize_grid,
    resize_matrix,
    resize_patch_kernel,
)

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
with np.load(GOLDEN / "resampling.npz") as file:
    RECORDED = dict(file)
KEYS = sorted({key.rpartition(" ")[0] for key in RECORDED})
with np.load(GOLDEN / "patch_kernels.npz") as file:
    KERNELS = dict(file)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("key", KEYS)
def test_equals_the_original(key: str, interpolation: str) -> None:
    expected = RECORDED[f"{key} {interpolation}"]
    ours = resize_grid(RECORDED[f"{key} grid"], expected.shape[:2], interpolation)
    assert ours.dtype == np.float32
    difference = np.abs(ours - expected).max()
    print(f"{key} {interpolation}: {difference:.1e}")
    assert difference <= 1e-5


def test_conventions_differ() -> None:
    """Each pair by far more than the tolerance: taking the wrong one is noticed."""
    names = sorted(INTERPOLATIONS)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            matrices = [resize_matrix(14, 18, name) for name in (first, second)]
            assert np.abs(matrices[0] - matrices[1]).max() > 1e-3, (first, second)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_matrices(interpolation: str) -> None:
    for old, new in ((1, 1), (1, 5), (5, 1), (7, 3), (3, 7), (16, 50)):
        matrix = resize_matrix(old, new, interpolation)
        assert matrix.shape == (new, old)
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=0, atol=1e-12)
    if interpolation != "bicubic_offset":  # which moves a grid of the same size too
        same = resize_matrix(6, 6, interpolation)
        np.testing.assert_allclose(same, np.eye(6), rtol=0, atol=1e-12)


@pytest.mark.parametrize("interpolation", ["bicubic_antialias", "bilinear"])
@pytest.mark.parametrize("key", sorted({key.rpartition(" ")[0] for key in KERNELS}))
def test_patch_kernels_equal_the_original(key: str, interpolation: str) -> None:
    expected = KERNELS[f"{key} {interpolation}"]
    kernel = KERNELS[f"{key} kernel"]
    ours = resize_patch_kernel(kernel, expected.shape[:2], interpolation)
    difference = np.abs(ours - expected).max() / np.abs(expected).max()
    print(f"{key} {interpolation}: {difference:.1e}")
    assert difference <= 1e-5


def test_a_larger_patch_kernel_answers_to_enlarged_patches_as_before() -> None:
    """FlexiViT's promise, which resizing the kernel like an image does not keep."""
    rng = np.random.default_rng(0)
    kernel, patch = rng.normal(size=(8, 8, 1, 5)), rng.normal(size=(8, 8, 1))
    larger = resize_patch_kernel(kernel, (12, 16), "bilinear")
    enlarged = resize_grid(patch, (12, 16), "bilinear")
    expected = np.einsum("hwc,hwcd->d", patch, kernel)
    found = np.einsum("hwc,hwcd->d", enlarged, larger)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    naive = resize_grid(kernel[:, :, 0], (12, 16), "bilinear")[:, :, None]
    assert np.abs(np.einsum("hwc,hwcd->d", enlarged, naive) - expected).max() > 1


def test_dtype_is_kept() -> None:
    grid = np.ones((2, 3, 4), np.float16)
    assert resize_grid(grid, (5, 5), "bilinear").dtype == np.float16


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="interpolation must be one of"):
        resize_matrix(3, 4, "lanczos")
    with pytest.raises(ValueError, match="at least 1 cell"):
        resize_matrix(3, 0, "bilinear")
