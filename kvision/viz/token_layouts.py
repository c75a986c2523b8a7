"""Where on a grid of patches the queries and the keys of an attention are.

Shapes: B batch, H heads, h x w cells of the grid, N queries, M keys.
"""

from dataclasses import dataclass

import numpy as np

__all__ = [
    "Cell",
    "Layout",
    "SummaryLayout",
    "TokenLayout",
    "WindowLayout",
    "repeated",
    "shared_out",
]

Array = np.ndarray
Size = tuple[int, int]
Cell = tuple[int, int]


@dataclass(frozen=True, eq=False)
class TokenLayout:
    """All tokens attend to all; prefix tokens come first.

    Args:
        cells: (B, h, w) integers: which of the patches, counted from 0, covers a cell;
            -1 where none does.
        num_prefix_tokens: P.
        has_class_token: whether token 0 stands for the whole image.
    """

    cells: Array
    num_prefix_tokens: int = 0
    has_class_token: bool = False

    @property
    def grid_size(self) -> Size:
        """Rows and columns of the grid."""
        return self.cells.shape[1], self.cells.shape[2]

    def seen_by(self, scores: Array, query: Cell | None) -> Array:
        """Lay out how much a query sees of each cell.

        Args:
            scores: (B, H, N, N) array.
            query: (row, column) of a patch; None for the class token or, without one,
                the mean of all patches.

        Returns:
            (B, H, h, w) array; NaN for cells that it cannot see.
        """
        prefix = self.num_prefix_tokens
        if query is not None:
            rows = self._of_patch(scores, query)
        elif self.has_class_token:
            rows = scores[:, :, 0]
        else:
            rows = scores[:, :, prefix:].mean(2)
        return self.placed(rows[:, :, prefix:])

    def placed(self, patches: Array) -> Array:
        """Bring a number for each patch to the grid.

        Args:
            patches: (B, H, N - P) array.

        Returns:
            (B, H, h, w) array; NaN where there is no patch.
        """
        batch, heads, _ = patches.shape
        cells = self.cells.reshape(batch, 1, -1)
        taken = np.take_along_axis(patches, np.maximum(cells, 0), axis=2)
        placed = np.where(cells < 0, np.float32(np.nan), taken)
        return placed.reshape(batch, heads, *self.grid_size)

    def shared_out(self, patches: Array) -> Array:
        """Give the cells of a patch equal shares of its number.

        Args:
            patches: (B, N - P) array.

        Returns:
            (B, h, w) array; NaN where there is no patch.
        """
        rows = self.cells.reshape(len(patches), -1)
        areas = np.stack([np.bincount(row[row >= 0]) for row in rows])
        return self.placed((patches / areas)[:, None])[:, 0]

    def _of_patch(self, scores: Array, query: Cell) -> Array:
        """Return the rows (B, H, N) of the patch that covers a cell."""
        row, column = _checked(query, self.grid_size)
        numbers = self.cells[:, row, column]
        rows = scores[np.arange(len(scores)), :, self.num_prefix_tokens + numbers]
        return np.where(numbers[:, None, None] < 0, np.float32(np.nan), rows)


@dataclass(frozen=True)
class WindowLayout:
    """The cells of a window attend to each other; windows at the edge are cut.

    Args:
        grid_size: (h, w).
        side: of a window, in cells. A query has side * side keys, row by row.
    """

    grid_size: Size
    side: int

    def seen_by(self, scores: Array, query: Cell | None) -> Array:
        """See `TokenLayout`; without a query the mean over those of each window."""
        result = np.full((*scores.shape[:2], *self.grid_size), np.nan, np.float32)
        by_cell = self._by_cell(scores)
        chosen = None if query is None else _checked(query, self.grid_size)
        for rows, columns in self._windows():
            if chosen is None:
                seen = by_cell[:, :, rows, columns].mean((2, 3))
            elif chosen[0] in _range(rows) and chosen[1] in _range(columns):
                seen = by_cell[:, :, chosen[0], chosen[1]]
            else:
                continue
            height, width = len(_range(rows)), len(_range(columns))
            result[:, :, rows, columns] = seen[..., :height, :width]
        return result

    def sent_back(self, fused: Array, weights: Array) -> Array:
        """Take weights of the cells back to the cells that they attend to.

        Args:
            fused: (B, N, M) array whose rows sum to 1.
            weights: (B, h, w) array.

        Returns:
            (B, h, w) array of the same sum.
        """
        result = np.zeros_like(weights)
        by_cell = self._by_cell(fused[:, None])[:, 0]
        for rows, columns in self._windows():
            height, width = len(_range(rows)), len(_range(columns))
            keys = by_cell[:, rows, columns, :height, :width]
            result[:, rows, columns] = np.einsum(
                "byx,byxuv->buv", weights[:, rows, columns], keys
            )
        return result

    def _by_cell(self, scores: Array) -> Array:
        return scores.reshape(*scores.shape[:2], *self.grid_size, self.side, self.side)

    def _windows(self) -> list[tuple[slice, slice]]:
        height, width = self.grid_size
        return [
            (
                slice(top, min(top + self.side, height)),
                slice(left, min(left + self.side, width)),
            )
            for top in range(0, height, self.side)
            for left in range(0, width, self.side)
        ]


@dataclass(frozen=True)
class SummaryLayout:
    """Every cell attends to squares of cells, each of which has one key.

    Args:
        grid_size: (h, w).
        reduction: side of a square, in cells.
    """

    grid_size: Size
    reduction: int

    def seen_by(self, scores: Array, query: Cell | None) -> Array:
        """See `TokenLayout`; the cells of a square show the same number."""
        if query is None:
            rows = scores.mean(2)
        else:
            row, column = _checked(query, self.grid_size)
            rows = scores[:, :, row * self.grid_size[1] + column]
        squares = rows.reshape(*rows.shape[:2], *self._squares())
        return repeated(squares, self.reduction, self.grid_size)

    def sent_back(self, fused: Array, weights: Array) -> Array:
        """See `WindowLayout.sent_back`; the cells of a square share alike."""
        batch = len(weights)
        keys = np.einsum("bn,bnm->bm", weights.reshape(batch, -1), fused)
        return shared_out(
            keys.reshape(batch, *self._squares()), self.reduction, self.grid_size
        )

    def _squares(self) -> Size:
        height, width = self.grid_size
        return -(-height // self.reduction), -(-width // self.reduction)


Layout = TokenLayout | WindowLayout | SummaryLayout


def repeated(squares: Array, side: int, grid_size: Size) -> Array:
    """Give each cell the number of its square.

    Args:
        squares: (..., ceil(h / side), ceil(w / side)) array.
        side: of a square, in cells.
        grid_size: (h, w).

    Returns:
        (..., h, w) array.
    """
    cells = squares.repeat(side, axis=-2).repeat(side, axis=-1)
    return cells[..., : grid_size[0], : grid_size[1]]


def shared_out(squares: Array, side: int, grid_size: Size) -> Array:
    """Give each cell an equal share of the number of its square.

    Args:
        squares: (..., ceil(h / side), ceil(w / side)) array.
        side: of a square, in cells.
        grid_size: (h, w).

    Returns:
        (..., h, w) array of the same sum.
    """
    rows, columns = (
        np.minimum(side, size - side * np.arange(-(-size // side)))
        for size in grid_size
    )
    return repeated(squares / (rows[:, None] * columns), side, grid_size)


def _range(part: slice) -> range:
    return range(part.start, part.stop)


def _checked(query: Cell, grid_size: Size) -> Cell:
    rows, columns = grid_size
    row, column = query
    if not (-rows <= row < rows and -columns <= column < columns):
        raise ValueError(
            f"query must be (row, column) on a grid of {rows} x {columns} patches. "
            f"Received: {query}"
        )
    return row % rows, column % columns
