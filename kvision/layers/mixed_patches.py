"""Patches of two sizes in one sequence: fine where there is something to see.

Shapes: B batch, h x w coarse cells, G = h * w, each of 2 x 2 fine patches, k of them
shown in fine patches, P prefix tokens, D width.
"""

from typing import Any

import keras
from keras import ops

from kvision.ops.gathering import gather_rows
from kvision.ops.resampling import INTERPOLATIONS, resize_grid
from kvision.ops.tokens import (
    cells_to_grid,
    covered_cells,
    detail_energy,
    grid_to_cells,
    positions_of,
    share_of,
)

__all__ = [
    "DetailScores",
    "MixedPatches",
    "MixedTokensToGrid",
    "MultiScalePositionEmbedding",
    "RegionScores",
]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class DetailScores(keras.layers.Layer):
    """Score cells by what they lose at half the resolution; nothing is learned.

    Computed in float32 from the images as they come, so that every export and every
    dtype policy chooses the same cells.

    Args:
        patch_size: (height, width) of a cell in pixels, even.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if a side is odd.

    Source: see `kvision.ops.tokens.detail_energy`.
    """

    def __init__(self, patch_size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.patch_size = _even(patch_size)

    def call(self, images: Tensor) -> Tensor:
        """Map images (B, H, W, C) to energies (B, h, w) of at least 0."""
        return detail_energy(ops.cast(images, "float32"), self.patch_size)

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        """Return (B, h, w)."""
        batch, height, width, _ = images_shape
        rows, columns = self.patch_size
        return (batch, -(-height // rows), -(-width // columns))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "patch_size": self.patch_size}


def _even(patch_size: tuple[int, int]) -> tuple[int, int]:
    height, width = patch_size
    if height % 2 or width % 2 or min(height, width) < 2:
        raise ValueError(
            "patch_size must be (height, width) in pixels, both even: a fine patch is "
            f"half as high and wide. Received: {tuple(patch_size)}"
        )
    return height, width


@keras.saving.register_keras_serializable("kvision")
class RegionScores(keras.layers.Layer):
    """Put the cells that regions of interest cover before all others.

    Args:
        patch_size: (height, width) of a cell in pixels, even.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if a side is odd.
    """

    def __init__(self, patch_size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.patch_size = _even(patch_size)

    def call(self, scores: Tensor, regions: Tensor) -> Tensor:
        """Raise the scores of covered cells.

        Args:
            scores: (B, h, w) tensor of at least 0, by which covered cells are ordered
                among themselves, and the others after them.
            regions: (B, n, 4) boxes x1, y1, x2, y2 in pixels of the input; zeros are
                padding. A cell that shares any area with one is covered.

        Returns:
            (B, h, w) float32 tensor: in [2, 3] for covered cells, else in [0, 1].
        """
        largest = ops.max(scores, axis=(1, 2), keepdims=True)
        shares = scores / ops.maximum(largest, 1e-12)
        covered = covered_cells(regions, scores.shape[1:], self.patch_size)
        return shares + 2.0 * covered

    def compute_output_shape(self, scores_shape: Shape, regions_shape: Shape) -> Shape:
        """Return that of the scores."""
        return scores_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "patch_size": self.patch_size}


@keras.saving.register_keras_serializable("kvision")
class MultiScalePositionEmbedding(keras.layers.Layer):
    """Add codes of place and of size to patches of two sizes.

    There is one learned table, for the fine grid. The code of a coarse cell is the mean
    of those of its four fine patches, so both sizes learn one geometry, and a place
    means the same whichever patch shows it. A second code says which size a patch has;
    it stands for the bias of the patch embeddings, which need none.

    Args:
        interpolation: how the table is brought to another grid by
            `kvision.models.with_image_size`; see `kvision.ops.resampling`.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: for an unknown interpolation.
    """

    def __init__(self, interpolation: str = "bicubic_antialias", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}. Received: "
                f"{interpolation!r}"
            )
        self.interpolation = interpolation

    def build(self, coarse_shape: Shape, fine_shape: Shape) -> None:
        """Create the table of the fine grid and the two codes of size."""
        _, height, width, depth = coarse_shape
        self.table = self.add_weight(
            shape=(2 * height, 2 * width, depth),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="table",
        )
        self.scales = self.add_weight(
            shape=(2, depth),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="scales",
        )

    def call(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Add the codes.

        Args:
            coarse: (B, h, w, D) tensor.
            fine: (B, 2h, 2w, D) tensor. The last row or column may be missing where no
                pixel lies in it: it is zeros, as patches of zeros without bias are.

        Returns:
            Both with codes; the fine one is (B, 2h, 2w, D).
        """
        table = ops.expand_dims(ops.cast(self.table, coarse.dtype), 0)
        scales = ops.cast(self.scales, coarse.dtype)
        means = ops.average_pool(table, 2, 2, "valid")
        missing = [
            new - old
            for new, old in zip(self.table.shape[:2], fine.shape[1:3], strict=True)
        ]
        if any(missing):
            sides = [(0, 0), (0, missing[0]), (0, missing[1]), (0, 0)]
            fine = ops.pad(fine, sides)
        return coarse + (means + scales[0]), fine + (table + scales[1])

    def carry_over(self, source: "MultiScalePositionEmbedding") -> None:
        """Take the codes of the same layer of a model for images of another size.

        Args:
            source: the layer to resample from; both are built.
        """
        table = ops.convert_to_numpy(source.table)
        if source.table.shape != self.table.shape:
            table = resize_grid(table, self.table.shape[:2], self.interpolation)
        self.table.assign(table)
        self.scales.assign(source.scales)

    def compute_output_shape(
        self, coarse_shape: Shape, fine_shape: Shape
    ) -> tuple[Shape, Shape]:
        """Return the shapes of both grids."""
        batch, height, width, depth = coarse_shape
        return coarse_shape, (batch, 2 * height, 2 * width, depth)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "interpolation": self.interpolation}


@keras.saving.register_keras_serializable("kvision")
class MixedPatches(keras.layers.Layer):
    """Show the cells of the highest scores in fine patches, the others in coarse ones.

    Args:
        fine_cells: how many cells are fine: a number k, or a float in [0, 1], the share
            of all cells. (So 1 is one cell and 1.0 are all.)
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if the share is out of range, or at build time there are fewer
            cells than k.
    """

    def __init__(self, fine_cells: int | float, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        if fine_cells < 0 or (isinstance(fine_cells, float) and fine_cells > 1):
            raise ValueError(
                "fine_cells must be a number of cells, 0 or more, or a float in "
                f"[0, 1], the share of all cells. Received: {fine_cells}"
            )
        self.fine_cells = fine_cells

    def build(
        self, coarse_shape: Shape, fine_shape: Shape, scores_shape: Shape
    ) -> None:
        """Check that there are enough cells."""
        total = coarse_shape[1] * coarse_shape[2]
        if self._count(total) > total:
            raise ValueError(
                f"fine_cells must be at most {total}, the cells of a grid of "
                f"{coarse_shape[1]} x {coarse_shape[2]}. Received: {self.fine_cells}"
            )

    def _count(self, total: int) -> int:
        if isinstance(self.fine_cells, float):
            return share_of(total, self.fine_cells)
        return self.fine_cells

    def call(
        self, coarse: Tensor, fine: Tensor, scores: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Choose and line up patches.

        Args:
            coarse: (B, h, w, D) tensor.
            fine: (B, 2h, 2w, D) tensor.
            scores: (B, h, w) tensor.

        Returns:
            Tokens (B, G + 3k, D): the four fine ones of each of k cells, then the
            coarse ones of the others. And (B, G) int32: which cell each of them is, by
            rows of the coarse grid, in descending order of scores; the first k of it
            are the fine ones.
        """
        _, height, width, depth = coarse.shape
        total = height * width
        count = self._count(total)
        _, cells = ops.top_k(ops.reshape(scores, (-1, total)), total)
        parts = []
        if count:
            shown = gather_rows(grid_to_cells(fine), cells[:, :count])
            parts.append(ops.reshape(shown, (-1, 4 * count, depth)))
        if count < total:
            rows = ops.reshape(coarse, (-1, total, depth))
            parts.append(gather_rows(rows, cells[:, count:]))
        tokens = ops.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        return tokens, cells

    def compute_output_spec(
        self, coarse: Any, fine: Any, scores: Any
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Promise the budget of tokens."""
        batch, height, width, depth = coarse.shape
        total = height * width
        length = total + 3 * self._count(total)
        return (
            keras.KerasTensor((batch, length, depth), coarse.dtype),
            keras.KerasTensor((batch, total), "int32"),
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "fine_cells": self.fine_cells}


@keras.saving.register_keras_serializable("kvision")
class MixedTokensToGrid(keras.layers.Layer):
    """Lay patches of two sizes out in the fine grid: the inverse of `MixedPatches`.

    A coarse token stands in all four places of its cell.

    Args:
        num_prefix_tokens: tokens before the patches, which are left out.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, num_prefix_tokens: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_prefix_tokens = num_prefix_tokens

    def call(self, tokens: Tensor, cells: Tensor, grid: Tensor) -> Tensor:
        """Map tokens to a grid.

        Args:
            tokens: (B, P + G + 3k, D) tensor.
            cells: (B, G) int32 tensor, as `MixedPatches` gives it.
            grid: (B, h, w, ...) tensor whose shape tells h and w.

        Returns:
            (B, 2h, 2w, D) tensor.
        """
        height, width = grid.shape[1:3]
        total, depth = height * width, tokens.shape[-1]
        patches = tokens[:, self.num_prefix_tokens :]
        count = (patches.shape[1] - total) // 3
        parts = []
        if count:
            fine = patches[:, : 4 * count]
            parts.append(ops.reshape(fine, (-1, count, 4 * depth)))
        if count < total:
            coarse = patches[:, 4 * count :]
            parts.append(ops.concatenate([coarse] * 4, axis=-1))
        rows = ops.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        rows = gather_rows(rows, positions_of(cells, total))
        return cells_to_grid(rows, height, width)

    def compute_output_shape(
        self, tokens_shape: Shape, cells_shape: Shape, grid_shape: Shape
    ) -> Shape:
        """Return (B, 2h, 2w, D)."""
        batch, height, width, *_ = grid_shape
        return (batch, 2 * height, 2 * width, tokens_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "num_prefix_tokens": self.num_prefix_tokens}
