"""ROIAlign: features of regions, sampled bilinearly from a pyramid.

A region is covered with a regular grid of sample points; the samples of a bin are
averaged. The modes differ in where the grid lies:

    "unaligned"        torchvision's default: pixel coordinates are scaled to the level
                       without a shift, regions are at least one cell large
    "aligned"          detectron2's: the half cell between a pixel's index and its
                       centre is subtracted
    "crop_and_resize"  `tf.image.crop_and_resize`: one sample a bin, the first and last
                       ones on the corners of the region, coordinates relative to the
                       outermost cell centres

A bin has the same number of samples in every region, or (sampling ratio 0) as many as
it has cells along each axis.

Two formulations compute the same numbers: gathers of the cells around the samples, for
XLA, TFLite and other backends; and TensorFlow's fused kernel, three to five times
faster in a plain graph on a CPU. The gradient of that kernel is not used: its threads
add to the same cells without a lock and lose some of the terms (TensorFlow issue
42033). A product with a sparse matrix takes its place; it repeats to the last bit and
is faster. Where regions differ in their samples, that matrix takes the place of the
kernel too.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from keras import ops

from kvision.ops import boxes as box_ops
from kvision.ops.tracing import static_shapes_required, tracing_for_tflite

__all__ = [
    "MODES",
    "SampleGrid",
    "assign_levels",
    "multilevel_roi_align",
    "sample_grid",
]

Tensor = Any

MODES = ("unaligned", "aligned", "crop_and_resize")

# Of products with a sparse matrix, which are computed in parts of so many bins.
_BINS_OF_A_PART = 2**14

# Cells along both sides of the largest regions that have a sample in each of their
# cells; longer ones may be as much narrower. A region of P2 to P4 has an area of at
# most 28 x 28 cells, one of P5 is at most the image.
_CELLS_OF_A_REGION = 35


def assign_levels(
    rois: Tensor,
    min_level: int,
    max_level: int,
    canonical_level: int = 4,
    canonical_size: float = 224.0,
) -> Tensor:
    """Choose the pyramid level that fits the size of each region.

    Args:
        rois: (..., 4) float32 tensor in pixels.
        min_level: finest level.
        max_level: coarsest level.
        canonical_level: level of regions of `canonical_size`.
        canonical_size: square root of the area, in pixels.

    Returns:
        (...) int32 tensor in [min_level, max_level].

    Source: Lin et al. 2017, FPN, Eq. 1; the epsilon is torchvision's.
    """
    size = ops.sqrt(box_ops.area(rois))
    octaves = ops.log2(ops.maximum(size / canonical_size, 1e-9)) + 1e-6
    levels = ops.floor(canonical_level + octaves)
    return ops.cast(ops.clip(levels, min_level, max_level), "int32")


class SampleGrid(NamedTuple):
    """Sample points of regions along both axes, in cells of a feature map.

    Point i of a region lies at `start + i * step`; `start` and `step` have the shape
    (..., 2) with y first. `num_points` is the number of points along each axis. Where
    regions differ in their samples, it is the bins that begin there.
    """

    start: Tensor
    step: Tensor
    num_points: int


def sample_grid(
    rois: Tensor,
    map_size: Tensor,
    image_size: tuple[int, int],
    stride: Tensor,
    output_size: int,
    sampling_ratio: int,
    mode: str,
) -> SampleGrid:
    """Lay the sample points of a mode over regions.

    Args:
        rois: (..., 4) float32 tensor in pixels.
        map_size: (..., 2) float32 tensor: (height, width) of the feature map.
        image_size: (height, width) of the image in pixels.
        stride: (..., 1) float32 tensor: pixels a cell.
        output_size: bins along each side.
        sampling_ratio: samples a bin along each axis; 0 gives the bins.
        mode: one of `MODES`.

    Returns:
        The grid, in float32.
    """
    low = ops.stack([rois[..., 1], rois[..., 0]], axis=-1)
    high = ops.stack([rois[..., 3], rois[..., 2]], axis=-1)
    if mode == "crop_and_resize":
        pixels = ops.convert_to_tensor(image_size, dtype="float32")
        low, high = low / pixels * (map_size - 1), high / pixels * (map_size - 1)
        if output_size == 1:
            return SampleGrid((low + high) / 2, high - low, 1)
        return SampleGrid(low, (high - low) / (output_size - 1), output_size)
    low, high = low / stride, high / stride
    if mode == "aligned":
        low, high = low - 0.5, high - 0.5
        extent = high - low
    else:
        extent = ops.maximum(high - low, 1.0)
    if sampling_ratio == 0:
        return SampleGrid(low, extent / output_size, output_size)
    num_points = output_size * sampling_ratio
    step = extent / num_points
    return SampleGrid(low + 0.5 * step, step, num_points)


def multilevel_roi_align(
    features: Mapping[int, Tensor],
    rois: Tensor,
    image_indices: Tensor,
    image_size: tuple[int, int],
    output_size: int,
    sampling_ratio: int = 2,
    mode: str = "unaligned",
    canonical_level: int = 4,
    canonical_size: float = 224.0,
) -> Tensor:
    """Pool each region from the pyramid level that fits it.

    Args:
        features: level -> (B, h, w, C) feature map, consecutive levels; the stride of
            level l is 2**l.
        rois: (N, 4) float32 tensor in pixels of the model input. No gradient flows
            into it.
        image_indices: (N,) int32 tensor in [0, B).
        image_size: (height, width) of the model input in pixels.
        output_size: bins S along each side.
        sampling_ratio: samples a bin along each axis; "crop_and_resize" takes one. 0:
            as many as it has cells, rounded up, as detectron2; regions of more than
            35 x 35 cells have one in every second cell or fewer.
        mode: one of `MODES`.
        canonical_level: see `assign_levels`.
        canonical_size: see `assign_levels`.

    Returns:
        (N, S, S, C) tensor of the features' dtype.

    Raises:
        ValueError: for an unknown mode.

    Source: He et al. 2017, Mask R-CNN, section 3; borders as in torchvision `ops`:
    samples up to one cell outside the map take the nearest cell, others are 0.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}. Received: mode={mode!r}")
    if mode == "crop_and_resize":
        sampling_ratio = 1
    levels = sorted(features)
    roi_levels = assign_levels(
        rois, levels[0], levels[-1], canonical_level, canonical_size
    )
    pool = _pool_by_gather if static_shapes_required() else _pool_fused
    rois = ops.stop_gradient(rois)

    def grid_of(rois: Tensor, map_size: Tensor, stride: Tensor) -> SampleGrid:
        return sample_grid(
            rois, map_size, image_size, stride, output_size, sampling_ratio, mode
        )

    # One cell beyond the border still counts, except for crop_and_resize.
    margin = 0 if mode == "crop_and_resize" else 1
    return pool(
        features, rois, image_indices, roi_levels, grid_of, margin, sampling_ratio
    )


def _pool_by_gather(
    features: Mapping[int, Tensor],
    rois: Tensor,
    image_indices: Tensor,
    roi_levels: Tensor,
    grid_of: Any,
    margin: int,
    sampling_ratio: int,
) -> Tensor:
    """Gather the cells around the samples from all levels laid end to end.

    One gather for each of the cells that a bin is made of keeps the largest
    intermediate tensor at the size of the result.
    """
    levels = sorted(features)
    channels = features[levels[0]].shape[-1]
    cells = ops.concatenate(
        [ops.reshape(features[level], (-1, channels)) for level in levels], axis=0
    )
    taps = _taps(
        features, rois, image_indices, roi_levels, grid_of, margin, sampling_ratio
    )
    gather = _chained_gather if tracing_for_tflite() else _weighted_gather
    return gather(cells, taps)


class _Taps(NamedTuple):
    """Which cells of all levels laid end to end make up each bin.

    `origin` is the number of the first cell of a region's map and `width` the width of
    that map, both (N,) int32. A bin is the sum over `pairs` of a row and a column: of
    each, (N, S) int32 numbers and (N, S) float32 weights.
    """

    origin: Tensor
    width: Tensor
    pairs: list[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]


def _taps(
    features: Mapping[int, Tensor],
    rois: Tensor,
    image_indices: Tensor,
    roi_levels: Tensor,
    grid_of: Any,
    margin: int,
    sampling_ratio: int,
) -> _Taps:
    levels = sorted(features)
    sizes = [ops.shape(features[level])[1:3] for level in levels]
    batch = ops.shape(features[levels[0]])[0]
    areas = [height * width for height, width in sizes]
    starts = [sum(areas[:i]) for i in range(len(areas))]

    row = roi_levels - levels[0]
    map_size = ops.take(ops.convert_to_tensor(sizes, dtype="int32"), row, axis=0)
    level_start = ops.take(ops.convert_to_tensor(starts, dtype="int32"), row) * batch
    level_area = ops.take(ops.convert_to_tensor(areas, dtype="int32"), row)
    origin = level_start + image_indices * level_area
    strides = [2.0**level for level in levels]
    stride = ops.take(ops.convert_to_tensor(strides, dtype="float32"), row)

    grid = grid_of(rois, ops.cast(map_size, "float32"), stride[:, None])
    if sampling_ratio == 0:
        pairs = _cells_of_bins(grid, map_size, margin)
    else:
        rows = _neighbours(grid, 0, map_size[:, 0], margin, sampling_ratio)
        columns = _neighbours(grid, 1, map_size[:, 1], margin, sampling_ratio)
        pairs = [(row, column) for row in rows for column in columns]
    return _Taps(origin, map_size[:, 1], pairs)


def _cells_and_weights(
    taps: _Taps, row: tuple[Tensor, Tensor], column: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Number the cells where a row and a column meet: (N, S, S), and their weights."""
    line = taps.origin[:, None] + row[0] * taps.width[:, None]
    index = line[:, :, None] + column[0][:, None, :]
    return index, row[1][:, :, None] * column[1][:, None, :]


def _chained_gather(cells: Tensor, taps: _Taps) -> Tensor:
    """Sum as `_weighted_gather` does, each gather waiting for the sum before it.

    TFLite runs what its CPU delegate cannot (gathers) ahead of what it can (products
    and sums), and would hold all gathered tensors at once: four times the memory.
    """
    pooled = None
    for row, column in taps.pairs:
        index, weight = _cells_and_weights(taps, row, column)
        if pooled is not None:
            # Adds 0, but only the sum so far can tell.
            index = index + ops.cast(pooled[0, 0, 0, 0] > float("inf"), "int32")
        weight = ops.cast(weight, cells.dtype)[..., None]
        term = ops.take(cells, index, axis=0) * weight
        pooled = term if pooled is None else pooled + term
    return pooled


def _weighted_gather(cells: Tensor, taps: _Taps) -> Tensor:
    """Sum the cells at every pair of a row and a column, by weight.

    The gradient is written out as a loop: derived from the forward pass it would be one
    scatter for each pair, which XLA takes minutes to compile.
    """

    @ops.custom_gradient
    def gather(cells: Tensor) -> tuple[Tensor, Any]:
        pooled = 0.0
        for row, column in taps.pairs:
            index, weight = _cells_and_weights(taps, row, column)
            weight = ops.cast(weight, cells.dtype)[..., None]
            pooled = pooled + ops.take(cells, index, axis=0) * weight

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> Tensor:
            upstream = args[0] if upstream is None else upstream
            stacks = [
                tuple(ops.stack(parts) for parts in zip(*of_axis, strict=True))
                for of_axis in zip(*taps.pairs, strict=True)
            ]

            def add_pair(number: Tensor, total: Tensor) -> Tensor:
                row, column = (tuple(part[number] for part in axis) for axis in stacks)
                index, weight = _cells_and_weights(taps, row, column)
                weight = ops.cast(weight, upstream.dtype)[..., None]
                values = ops.cast(upstream * weight, "float32")
                values = ops.reshape(values, (-1, cells.shape[-1]))
                return total + ops.segment_sum(
                    values, ops.reshape(index, (-1,)), num_segments=ops.shape(cells)[0]
                )

            zeros = ops.zeros_like(cells, dtype="float32")
            total = ops.fori_loop(0, len(taps.pairs), add_pair, zeros)
            return ops.cast(total, cells.dtype)

        return pooled, gradient

    return gather(cells)


def _neighbours(
    grid: SampleGrid, axis: int, size: Tensor, margin: int, sampling_ratio: int
) -> list[tuple[Tensor, Tensor]]:
    """List the cells that the samples of a bin touch along one axis, with weights.

    Returns:
        2 * sampling_ratio pairs of (N, S) int32 cells and (N, S) float32 weights whose
        sum over the list is 1 inside the map.
    """
    points = ops.arange(grid.num_points, dtype="float32")
    start, step = grid.start[:, axis, None], grid.step[:, axis, None]
    position = start + points[None, :] * step
    last = ops.cast(size - 1, "float32")[:, None]
    inside = ops.logical_and(position >= -margin, position <= last + margin)
    position = ops.clip(position, 0.0, last)
    low = ops.floor(position)
    fraction = position - low
    scale = ops.cast(inside, "float32") / sampling_ratio
    pairs = (
        (low, (1.0 - fraction) * scale),
        (ops.minimum(low + 1.0, last), fraction * scale),
    )
    return [
        (ops.cast(cell[:, i::sampling_ratio], "int32"), weight[:, i::sampling_ratio])
        for cell, weight in pairs
        for i in range(sampling_ratio)
    ]


def _cells_of_bins(
    grid: SampleGrid, map_size: Tensor, margin: int
) -> list[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """Pair the rows and columns around the samples, of which there is one a cell.

    Samples at most a cell apart touch one cell more than they are, all in a row. How
    many rows and columns that makes depends on the region. Their product does so less:
    its numbers are shared out to rows and columns by each region in its own way.

    Args:
        grid: bins, of (N, 2) start and size.
        map_size: (N, 2) int32: (height, width) of the maps.
        margin: cells outside a map where samples still count.

    Returns:
        `pairs` of `_Taps`.
    """
    largest = math.ceil(_CELLS_OF_A_REGION / grid.num_points) + 1
    spacing = _spacing(grid.step, largest)[:, None]
    bin_size = grid.step[:, None]
    samples = ops.maximum(ops.ceil(bin_size / spacing), 1.0)
    step = bin_size / samples
    bins = ops.arange(grid.num_points, dtype="float32")[:, None]
    first = grid.start[:, None] + bins * bin_size + 0.5 * step
    last = ops.cast(map_size - 1, "float32")[:, None]

    numbers = ops.arange(largest**2, dtype="int32")[:, None]
    columns = ops.cast(samples[:, 0, 1], "int32") + 1
    offsets = ops.stack([numbers // columns, numbers % columns], axis=-1)
    cells = ops.floor(first) + ops.cast(offsets, "float32")[:, :, None] * spacing
    # The last sample too far before a cell; at most four are near enough.
    before = ops.floor((cells - spacing - first) / ops.maximum(step, 1e-6))
    weights: Tensor = 0.0
    for i in range(6):
        sample = ops.maximum(before, -1.0) + i
        position = first + sample * step
        is_one = ops.logical_and(sample >= 0, sample < samples)
        is_inside = ops.logical_and(position >= -margin, position <= last + margin)
        weight = ops.relu(1.0 - ops.abs(position - cells) / spacing)
        weights += ops.where(ops.logical_and(is_one, is_inside), weight, 0.0)
    weights = weights / samples
    cells = ops.cast(ops.clip(cells, 0.0, last), "int32")
    return [
        (
            (cells[i, ..., 0], weights[i, ..., 0]),
            (cells[i, ..., 1], weights[i, ..., 1]),
        )
        for i in range(largest**2)
    ]


def _spacing(bin_size: Tensor, largest: int) -> Tensor:
    """Choose how far apart cells are read: one after the other unless they are many.

    Args:
        bin_size: (N, 2) float32 cells.
        largest: a bin may touch the square of it.

    Returns:
        (N, 2) float32 whole numbers of cells.
    """
    touched = ops.maximum(ops.ceil(bin_size), 1.0) + 1.0
    short = ops.minimum(ops.min(touched, axis=-1, keepdims=True), float(largest))
    allowed = ops.where(touched > short, ops.floor(largest**2 / short), short)
    return ops.maximum(ops.ceil(bin_size / (allowed - 1.0)), 1.0)


def _pool_fused(
    features: Mapping[int, Tensor],
    rois: Tensor,
    image_indices: Tensor,
    roi_levels: Tensor,
    grid_of: Any,
    margin: int,
    sampling_ratio: int,
) -> Tensor:
    """Pool with TensorFlow's fused kernel, and a gradient that can be relied on."""
    import tensorflow as tf

    levels = sorted(features)
    regions = (rois, image_indices, roi_levels, grid_of, margin, sampling_ratio)
    forward = _collect if sampling_ratio == 0 else _crop_and_average

    @tf.custom_gradient
    def pool(*maps: Tensor) -> tuple[Tensor, Any]:
        by_level = dict(zip(levels, maps, strict=True))

        def gradient(upstream: Tensor) -> list[Tensor]:
            return _spread(upstream, maps, _taps(by_level, *regions))

        return forward(by_level, *regions), gradient

    return pool(*(features[level] for level in levels))


def _collect(features: Mapping[int, Tensor], *regions: Any) -> Tensor:
    """Multiply all levels laid end to end with a sparse matrix: one row a bin."""
    import tensorflow as tf

    maps = [features[level] for level in sorted(features)]
    channels = maps[0].shape[-1]
    cells = tf.concat([tf.reshape(values, (-1, channels)) for values in maps], axis=0)
    cells = tf.cast(cells, tf.float32)
    taps = _taps(features, *regions)
    numbers, weights = _entries(taps)
    parts = tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False)

    def product(part: slice, parts: Tensor) -> Tensor:
        matrix = _sparse_matrix(numbers[part], weights[part], tf.shape(cells)[0])
        rows = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=cells)
        return parts.write(parts.size(), rows)

    bins = _in_parts(product, tf.shape(numbers)[0], parts).concat()
    side = taps.pairs[0][0][0].shape[1]
    bins = tf.reshape(bins, (-1, side, side, channels))
    return tf.cast(bins, maps[0].dtype)


def _spread(upstream: Tensor, maps: tuple[Tensor, ...], taps: _Taps) -> list[Tensor]:
    """Bring (N, S, S, C) gradients of bins back to the maps.

    Pooling is a sparse matrix with one row a bin and one column a cell; this multiplies
    with its transpose. The matrix takes float32 only: in parts, the copy of all bins is
    never whole.
    """
    import tensorflow as tf

    channels = maps[0].shape[-1]
    sizes = [tf.size(values) // channels for values in maps]
    number = tf.add_n(sizes)
    cells, weights = _entries(taps)
    bins = tf.reshape(upstream, (-1, channels))

    def add_product(part: slice, total: Tensor) -> Tensor:
        matrix = _sparse_matrix(cells[part], weights[part], number)
        return total + tf.raw_ops.SparseMatrixMatMul(
            a=tf.raw_ops.SparseMatrixTranspose(input=matrix, type=tf.float32),
            b=tf.cast(bins[part], tf.float32),
        )

    zeros = tf.zeros(tf.stack([number, channels]))
    spread = _in_parts(add_product, tf.shape(bins)[0], zeros)
    return [
        tf.cast(tf.reshape(part, tf.shape(values)), values.dtype)
        for part, values in zip(tf.split(spread, sizes), maps, strict=True)
    ]


def _entries(taps: _Taps) -> tuple[Tensor, Tensor]:
    """List the cells each bin is read from and their weights, both (M, T)."""
    import tensorflow as tf

    found = [_cells_and_weights(taps, row, column) for row, column in taps.pairs]
    cells, weights = (tf.stack(each, axis=-1) for each in zip(*found, strict=True))
    shape = (-1, len(taps.pairs))
    return tf.reshape(cells, shape), tf.reshape(weights, shape)


def _in_parts(step: Callable[..., Any], num_bins: Tensor, state: Any) -> Any:
    """Take (slice of bins, state) to the next state, over all bins."""
    import tensorflow as tf

    def take(first: Tensor, state: Any) -> tuple[Tensor, Any]:
        part = slice(first, first + _BINS_OF_A_PART)
        return first + _BINS_OF_A_PART, step(part, state)

    return tf.while_loop(
        lambda first, _: first < num_bins, take, (0, state), parallel_iterations=1
    )[1]


def _sparse_matrix(cells: Tensor, weights: Tensor, num_cells: Tensor) -> Tensor:
    """Make the matrix of pooling, bins x cells.

    Args:
        cells: (M, T) int32, the cells a bin is read from.
        weights: (M, T) float32, their weights.
        num_cells: scalar int32.

    Returns:
        A sparse matrix in TensorFlow's CSR form.
    """
    import tensorflow as tf

    columns = tf.cast(cells, tf.int64)
    number, taps = (tf.shape(columns, tf.int64)[axis] for axis in range(2))
    entries = [tf.repeat(tf.range(number), taps), tf.reshape(columns, [-1])]
    return tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.stack(entries, axis=1),
        values=tf.reshape(weights, [-1]),
        dense_shape=tf.stack([number, tf.cast(num_cells, tf.int64)]),
    )


def _crop_and_average(
    features: Mapping[int, Tensor],
    rois: Tensor,
    image_indices: Tensor,
    roi_levels: Tensor,
    grid_of: Any,
    margin: int,
    sampling_ratio: int,
) -> Tensor:
    """Pool the regions of each level with `tf.image.crop_and_resize`.

    The kernel is 0 outside the map, so the outermost cells are repeated once: then its
    rule equals torchvision's.
    """
    import tensorflow as tf

    rows_of_level, pooled_of_level = [], []
    for level, feature_map in features.items():
        rows = tf.where(tf.equal(roi_levels, level))[:, 0]
        border = [[0, 0], [margin, margin], [margin, margin], [0, 0]]
        padded = tf.pad(tf.cast(feature_map, tf.float32), border, mode="SYMMETRIC")
        map_size = tf.cast(tf.shape(feature_map)[1:3], tf.float32)[None, :]
        grid = grid_of(tf.gather(rois, rows), map_size, tf.constant([[2.0**level]]))
        start, step, num_points = grid
        pooled = _crop_bins(
            padded,
            SampleGrid(start + margin, step, num_points),
            tf.gather(image_indices, rows),
            sampling_ratio,
        )
        rows_of_level.append(tf.cast(rows, tf.int32))
        pooled_of_level.append(tf.cast(pooled, feature_map.dtype))
    return tf.dynamic_stitch(rows_of_level, pooled_of_level)


def _crop_bins(
    feature_map: Tensor, grid: SampleGrid, image_indices: Tensor, sampling_ratio: int
) -> Tensor:
    """Average the samples of each bin: (N, S, S, C) from one (B, h, w, C) map.

    The first samples of all bins are one regular grid, the second ones another, and so
    on. Cropped one after the other they take a fraction of the memory of all samples.
    """
    import tensorflow as tf

    last = tf.cast(tf.shape(feature_map)[1:3] - 1, tf.float32)
    bins = grid.num_points // sampling_ratio
    bin_step = grid.step * sampling_ratio
    samples = [(y, x) for y in range(sampling_ratio) for x in range(sampling_ratio)]
    pooled: Tensor = 0.0
    for number, offset in enumerate(samples):
        first = grid.start + grid.step * tf.constant([offset], tf.float32)
        points = [first, first + bin_step * (bins - 1)]
        corners = tf.concat(points, axis=-1) / tf.tile(last, [2])
        with tf.control_dependencies([pooled] if number else []):
            pooled = pooled + tf.image.crop_and_resize(
                feature_map, corners, image_indices, [bins, bins]
            )
    return pooled / sampling_ratio**2
