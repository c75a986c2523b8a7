"""Record how the originals resample: `python tests/parity/record_resampling.py`.

Needs torch, timm and scipy; writes tests/golden/resampling.npz (grids of positions) and
tests/golden/patch_kernels.npz.
"""

from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch.nn.functional import interpolate

SIZES = [
    ((14, 14), (24, 24)),
    ((14, 14), (7, 7)),
    ((14, 14), (10, 18)),
    ((7, 5), (16, 3)),
    ((3, 4), (1, 9)),
    ((1, 6), (4, 6)),
    ((16, 16), (21, 19)),
]
PATCH_SIZES = [((16, 16), (8, 8)), ((16, 16), (20, 20)), ((8, 6), (7, 9))]
GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def resampled(grid: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Resample a grid (h, w, D) by each of the five conventions."""
    image = torch.from_numpy(grid).permute(2, 0, 1)[None]
    channels = grid.shape[2]
    # DINO, vision_transformer.py: interpolate_pos_encoding.
    factors = tuple(
        (new + 0.1) / old for new, old in zip(size, grid.shape[:2], strict=True)
    )
    found = {
        "bicubic": interpolate(image, size=size, mode="bicubic", align_corners=False),
        "bicubic_offset": interpolate(
            image, scale_factor=factors, mode="bicubic", align_corners=False
        ),
        "bilinear": interpolate(image, size=size, mode="bilinear", align_corners=False),
    }
    arrays = {name: x[0].permute(1, 2, 0).numpy() for name, x in found.items()}
    table = torch.from_numpy(grid.reshape(1, -1, channels))
    table = resample_abs_pos_embed(table, list(size), list(grid.shape[:2]), 0)
    arrays["bicubic_antialias"] = table.reshape(*size, channels).numpy()
    # google-research/vision_transformer, checkpoint.py: interpolate_posembed.
    zoom = (*(new / old for new, old in zip(size, grid.shape[:2], strict=True)), 1)
    arrays["bilinear_align_corners"] = ndimage.zoom(grid, zoom, order=1)
    for name, array in arrays.items():
        assert array.shape == (*size, channels), (name, array.shape, size)
    return arrays


def resampled_patches(kernel: np.ndarray, size: tuple[int, int]) -> dict:
    """Resample a kernel (h, w, C, D): timm's way, and big_vision's bilinear one."""
    weight = torch.from_numpy(kernel).permute(3, 2, 0, 1)
    found = {
        "bicubic_antialias": resample_patch_embed(weight, list(size)),
        "bilinear": resample_patch_embed(
            weight, list(size), interpolation="bilinear", antialias=False
        ),
    }
    return {name: x.permute(2, 3, 1, 0).numpy() for name, x in found.items()}


def save(name: str, arrays: dict[str, np.ndarray]) -> None:
    np.savez_compressed(GOLDEN / name, **arrays)
    print(f"{name}: {(GOLDEN / name).stat().st_size / 1024:.0f} KiB")


def main() -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for old, new in SIZES:
        key = f"{old[0]}x{old[1]} {new[0]}x{new[1]}"
        grid = rng.normal(size=(*old, 2)).astype(np.float32)
        arrays[f"{key} grid"] = grid
        for name, values in resampled(grid, new).items():
            arrays[f"{key} {name}"] = values
    save("resampling.npz", arrays)
    arrays = {}
    for old, new in PATCH_SIZES:
        key = f"{old[0]}x{old[1]} {new[0]}x{new[1]}"
        kernel = rng.normal(size=(*old, 1, 2)).astype(np.float32)
        arrays[f"{key} kernel"] = kernel
        for name, values in resampled_patches(kernel, new).items():
            arrays[f"{key} {name}"] = values
    save("patch_kernels.npz", arrays)


if __name__ == "__main__":
    main()
