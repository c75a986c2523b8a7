"""Moving a sample: one affine map for the image, its boxes and its masks.

A sample is a dict of one image's tensors, with the keys of a batch: `images`
(H, W, 3), `gt_boxes` (G, 4), `gt_labels` (G,), `gt_masks` (G, h, w), and facts about
the image that no map changes. Turns by 90 degrees and mirrorings only permute values.
Scaling and cropping resample the image once, from whole source pixels to whole target
pixels, so that boxes stay exact. Rotation by other angles interpolates once more.

Boxes that lie inside the result as a whole are mapped. Where the frame cuts an object
off, or a rotation makes its box loose, the box becomes the extents of what is left of
its mask, where it passes one half between the centres of its cells.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kvision.data.images import cast_back, framed, resample
from kvision.ops.masks import crop_masks

__all__ = ["Sample", "affine", "pad_rows", "warp"]

Sample = dict[str, tf.Tensor]
Resampling = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_ROWS = ("gt_boxes", "gt_labels", "gt_masks")
_FACTS = ("labels", "image_ids", "image_sizes", "original_sizes", "scales")
_MIN_SIDE = 1.0  # pixels; less than this of an object cannot be learnt from
_SAME = 1e-3  # pixels; a box that moved by less lies where it did
_STRAIGHT = 1e-6  # off-diagonal part of a map below which it does not rotate


def affine(rows: list[list[Any]]) -> tf.Tensor:
    """Stack two rows of numbers or scalars to a (3, 3) float64 map of (x, y, 1)."""
    values = [[tf.cast(value, tf.float64) for value in row] for row in rows]
    return tf.stack([*(tf.stack(row) for row in values), [0.0, 0.0, 1.0]])


def warp(
    sample: Sample,
    matrix: tf.Tensor,
    size: Any,
    mask_size: int | None = None,
    *,
    is_upright: bool = False,
    resample: Resampling = resample,
) -> Sample:
    """Move image, boxes and masks by an affine map.

    Args:
        sample: dict as above; `gt_boxes`, `gt_labels` and `gt_masks` go together,
            `gt_masks` may be missing.
        matrix: (3, 3) float64 tensor; takes (x, y, 1) in pixels of the sample's image
            to pixels of the result.
        size: (height, width) of the result in pixels; what the image does not cover
            is 0.
        mask_size: cells along each side of the resulting masks; as before if None.
        is_upright: promise that the map only scales and shifts; saves tracing time.
        resample: how the image is brought to another size.

    Returns:
        The sample with as many rows as before. Objects of which less than 1 pixel is
        left have become padding: zeros, label -1.

    Raises:
        ValueError: the sample has a key that this function cannot move.
    """
    _refuse_unknown(sample)
    size = tf.cast(tf.convert_to_tensor(size), tf.int32)
    if "gt_boxes" not in sample:
        image = _move_image(is_upright, sample, matrix, size, resample)
        return {**sample, "images": image}
    image, boxes, labels = sample["images"], sample["gt_boxes"], sample["gt_labels"]
    masks = sample.get("gt_masks")
    used = rows_in_use(boxes, labels)
    cells = mask_size or (masks.shape[-1] if masks is not None else 1)
    # Without masks a box takes the place of its mask.
    grids = tf.ones_like(boxes[:, :1, None]) if masks is None else masks
    image, moved, grids, is_loose = _move(
        is_upright, image, boxes, grids, matrix, size, resample
    )
    side = (masks if masks is not None else grids).shape[-1]
    grids = tf.ensure_shape(grids, (None, side, side))
    image = tf.ensure_shape(image, (None, None, 3))
    boxes, is_left = _tighten(moved, grids, is_loose, size, masks is not None)
    keep = tf.logical_and(used, is_left)
    result = dict(sample)
    result["images"] = image
    result["gt_boxes"] = tf.where(keep[:, None], boxes, 0.0)
    result["gt_labels"] = tf.where(keep, labels, -1)
    if masks is not None:
        grids = _relaid(grids, moved, boxes, keep, cells)
        result["gt_masks"] = tf.where(keep[:, None, None], grids, tf.zeros_like(grids))
    return result


def pad_rows(sample: Sample, max_instances: int) -> Sample:
    """Put the objects of a sample first and pad or cut to a number of rows.

    Args:
        sample: dict with `gt_boxes` (G, 4), `gt_labels` (G,) and maybe `gt_masks`.
        max_instances: number of rows of the result.

    Returns:
        The sample with `max_instances` rows: zeros and label -1 as padding.
    """
    used = rows_in_use(sample["gt_boxes"], sample["gt_labels"])
    chosen = tf.where(used)[:max_instances, 0]
    rest = max_instances - tf.size(chosen)
    result = dict(sample)
    for key in _ROWS:
        if key not in sample:
            continue
        value = tf.gather(sample[key], chosen)
        fill = tf.constant(-1 if key == "gt_labels" else 0, value.dtype)
        paddings = [[0, rest]] + [[0, 0]] * (len(value.shape) - 1)
        value = tf.pad(value, paddings, constant_values=fill)
        result[key] = tf.ensure_shape(value, (max_instances, *value.shape[1:]))
    return result


def _move(
    is_upright: bool,
    image: tf.Tensor,
    boxes: tf.Tensor,
    grids: tf.Tensor,
    matrix: tf.Tensor,
    size: tf.Tensor,
    resample: Resampling,
) -> tuple[tf.Tensor, ...]:
    """Choose the cheapest way to apply a map.

    Returns:
        The image, boxes, the grids that lie over them, and whether a box may be
        larger than its mask.
    """
    if is_upright:
        return _scale(image, boxes, grids, matrix, size, resample)
    image, boxes, grids, matrix = _turn(image, boxes, grids, matrix)
    return tf.cond(
        tf.abs(matrix[0, 1]) + tf.abs(matrix[1, 0]) > _STRAIGHT,
        lambda: _rotate(image, boxes, grids, matrix, size, resample),
        lambda: _scale(image, boxes, grids, matrix, size, resample),
    )


def _move_image(
    is_upright: bool,
    sample: Sample,
    matrix: tf.Tensor,
    size: tf.Tensor,
    resample: Resampling,
) -> tf.Tensor:
    """Move an image without objects."""
    image = sample["images"]
    boxes, grids = tf.zeros((0, 4)), tf.zeros((0, 1, 1), tf.uint8)
    moved = _move(is_upright, image, boxes, grids, matrix, size, resample)[0]
    return tf.ensure_shape(moved, (None, None, image.shape[-1]))


def _refuse_unknown(sample: Sample) -> None:
    unknown = sorted(set(sample) - {"images", *_ROWS, *_FACTS})
    if unknown:
        raise ValueError(
            f"A sample with the keys {unknown} cannot be moved: they would stay where "
            f"they are while the image moves. Known keys: "
            f"{['images', *_ROWS, *_FACTS]}. Take the others out first."
        )


def rows_in_use(boxes: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Tell objects and crowd regions (label -1, with a box) from padding."""
    has_area = tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1)
    return tf.logical_or(labels >= 0, has_area)


# Quarter turns and mirrorings


def _turn(
    image: tf.Tensor, boxes: tf.Tensor, grids: tf.Tensor, matrix: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Transpose and mirror until the map's diagonal is its larger part, and positive.

    Returns:
        Image, boxes and grids so changed, and the map that is left to apply.
    """
    diagonal = tf.abs(matrix[0, 0]) + tf.abs(matrix[1, 1])
    other = tf.abs(matrix[0, 1]) + tf.abs(matrix[1, 0])
    image, boxes, grids, matrix = tf.cond(
        diagonal < other,
        lambda: (
            _swap(image, 0),
            tf.gather(boxes, (1, 0, 3, 2), axis=1),
            _swap(grids, 1),
            tf.gather(matrix, (1, 0, 2), axis=1),
        ),
        lambda: (image, boxes, grids, matrix),
    )
    for axis in (0, 1):
        state = (image, boxes, grids, matrix)
        image, boxes, grids, matrix = tf.cond(
            matrix[axis, axis] < 0,
            lambda axis=axis, state=state: _mirror(axis, *state),
            lambda state=state: state,
        )
    return image, boxes, grids, matrix


def _swap(values: tf.Tensor, axis: int) -> tf.Tensor:
    """Transpose an axis with the next one.

    By gathering: transposing uint8 makes oneDNN complain on stderr on many CPUs.
    """
    shape = tf.shape(values)
    rows, columns = shape[axis], shape[axis + 1]
    merged = tf.concat([shape[:axis], [rows * columns], shape[axis + 2 :]], axis=0)
    order = tf.range(rows)[None, :] * columns + tf.range(columns)[:, None]
    return tf.gather(tf.reshape(values, merged), order, axis=axis)


def _mirror(
    axis: int, image: tf.Tensor, boxes: tf.Tensor, grids: tf.Tensor, matrix: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Mirror along x (axis 0) or y (axis 1)."""
    length = tf.shape(image)[1 - axis]
    low, high = boxes[:, axis], boxes[:, axis + 2]
    columns = tf.unstack(boxes, axis=1)
    columns[axis] = tf.cast(length, boxes.dtype) - high
    columns[axis + 2] = tf.cast(length, boxes.dtype) - low
    rows = [[1, 0, 0], [0, 1, 0]]
    rows[axis][axis] = -1
    rows[axis][2] = length
    return (
        tf.reverse(image, [1 - axis]),
        tf.stack(columns, axis=1),
        tf.reverse(grids, [2 - axis]),
        matrix @ affine(rows),
    )


# Scaling and cropping


def _scale(
    image: tf.Tensor,
    boxes: tf.Tensor,
    grids: tf.Tensor,
    matrix: tf.Tensor,
    size: tf.Tensor,
    resample: Resampling,
) -> tuple[tf.Tensor, ...]:
    """Apply a map without rotation; masks keep their grids over their boxes."""
    scale = tf.stack([matrix[1, 1], matrix[0, 0]])
    shift = tf.stack([matrix[1, 2], matrix[0, 2]])
    source, target = _windows(tf.shape(image)[:2], scale, shift, size)
    (top, left), (bottom, right) = tf.unstack(source[0]), tf.unstack(source[1])
    image = resample(image[top:bottom, left:right], target[1] - target[0])
    image = framed(image, target[0], size)
    # Boxes follow the windows of whole pixels, not the map that led to them.
    exact = tf.cast(target[1] - target[0], tf.float64) / tf.cast(
        source[1] - source[0], tf.float64
    )
    offset = tf.cast(target[0], tf.float64) - exact * tf.cast(source[0], tf.float64)
    exact, offset = (
        tf.cast(tf.gather(value, (1, 0, 1, 0)), boxes.dtype)
        for value in (exact, offset)
    )
    moved = boxes * exact + offset
    return image, moved, grids, tf.zeros_like(boxes[:, 0], tf.bool)


def _windows(
    old: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor, size: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Find the pixels of the image that are seen, and the pixels they go to.

    Both are (2, 2) int32: (top, left) and (bottom, right). An edge of the image that
    is seen stays that edge.
    """
    length, frame = tf.cast(old, tf.float64), tf.cast(size, tf.float64)
    start, end = shift, shift + scale * length
    first = tf.clip_by_value(tf.floor(start + 0.5), 0.0, frame - 1.0)
    last = tf.clip_by_value(tf.floor(end + 0.5), first + 1.0, frame)
    low = tf.where(start > -0.5, tf.zeros_like(start), (first - start) / scale)
    high = tf.where(end < frame + 0.5, length, (last - start) / scale)
    low = tf.clip_by_value(tf.floor(low + 0.5), 0.0, length - 1.0)
    high = tf.clip_by_value(tf.floor(high + 0.5), low + 1.0, length)
    return (
        tf.cast(tf.stack([low, high]), tf.int32),
        tf.cast(tf.stack([first, last]), tf.int32),
    )


# Rotation


def _rotate(
    image: tf.Tensor,
    boxes: tf.Tensor,
    grids: tf.Tensor,
    matrix: tf.Tensor,
    size: tf.Tensor,
    resample: Resampling,
) -> tuple[tf.Tensor, ...]:
    """Apply any map; masks get grids over the boxes around their turned boxes."""
    corners = tf.gather(boxes, [[0, 1], [2, 1], [2, 3], [0, 3]], axis=1)
    linear = tf.cast(matrix[:2, :2], boxes.dtype)
    shift = tf.cast(matrix[:2, 2], boxes.dtype)
    corners = tf.linalg.matmul(corners, linear, transpose_b=True) + shift
    around = tf.concat(
        [tf.reduce_min(corners, axis=1), tf.reduce_max(corners, axis=1)], axis=1
    )
    grids = _rotate_grids(grids, boxes, around, tf.linalg.inv(matrix))
    loose = tf.ones_like(boxes[:, 0], tf.bool)
    return _rotate_image(image, matrix, size, resample), around, grids, loose


def _rotate_image(
    image: tf.Tensor, matrix: tf.Tensor, size: tf.Tensor, resample: Resampling
) -> tf.Tensor:
    # Interpolation between four neighbours would skip pixels where the image shrinks.
    scale = tf.sqrt(tf.abs(tf.linalg.det(matrix[:2, :2])))
    old = tf.cast(tf.shape(image)[:2], tf.float64)
    small = tf.maximum(tf.floor(old * tf.minimum(scale, 1.0) + 0.5), 1.0)
    image = resample(image, tf.cast(small, tf.int32))
    back = tf.linalg.diag(tf.concat([tf.gather(old / small, (1, 0)), [1.0]], axis=0))
    matrix = matrix @ back
    inverse = tf.cast(tf.linalg.inv(matrix), tf.float32)
    return _project(image[None], _half_pixel(inverse)[None], size)[0]


def _rotate_grids(
    grids: tf.Tensor, boxes: tf.Tensor, around: tf.Tensor, inverse: tf.Tensor
) -> tf.Tensor:
    """Resample each mask from a grid over its box to one over the box around it."""
    inverse = tf.cast(inverse, tf.float32)
    rows, columns = tf.shape(grids)[1], tf.shape(grids)[2]
    cells = tf.cast(tf.stack([columns, rows]), tf.float32)
    to_pixels = _diagonal((around[:, 2:] - around[:, :2]) / cells, around[:, :2])
    sides = tf.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    to_cells = _diagonal(cells / sides, -boxes[:, :2] * cells / sides)
    maps = _half_pixel(to_cells @ inverse @ to_pixels)
    turned = _project(grids[..., None], maps, tf.stack([rows, columns]))
    return turned[..., 0]


def _diagonal(scale: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Make (G, 3, 3) maps that scale (G, 2) and then shift (G, 2)."""
    last = tf.ones_like(scale[:, :1])
    maps = tf.linalg.diag(tf.concat([scale, last], axis=1))
    column = tf.concat([shift, tf.zeros_like(last)], axis=1)[..., None]
    return maps + tf.pad(column, [[0, 0], [0, 0], [2, 0]])


def _half_pixel(maps: tf.Tensor) -> tf.Tensor:
    """Make maps of pixel coordinates maps of pixel numbers (centres at + 0.5)."""
    shift = tf.constant([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], tf.float32)
    return tf.linalg.inv(shift) @ maps @ shift


def _project(images: tf.Tensor, maps: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resample (N, h, w, C) by maps (N, 3, 3) from result to source; 0 outside."""
    resampled = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.reshape(maps, (-1, 9))[:, :8],
        output_shape=size,
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return cast_back(resampled, images.dtype)


# Boxes and masks in the new frame


def _tighten(
    boxes: tf.Tensor,
    grids: tf.Tensor,
    is_loose: tf.Tensor,
    size: tf.Tensor,
    has_masks: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Clip boxes to the frame, and shrink the changed ones to what their masks fill.

    Returns:
        (G, 4) boxes, and (G,) whether at least a pixel of an object is left.
    """
    frame = tf.cast(tf.gather(size, (1, 0, 1, 0)), boxes.dtype)
    clipped = tf.clip_by_value(boxes, 0.0, frame)
    is_seen = tf.reduce_all(clipped[:, 2:] - clipped[:, :2] >= _MIN_SIDE, axis=1)
    if has_masks:
        changed = tf.reduce_any(tf.abs(clipped - boxes) > _SAME, axis=1)
        rows = tf.where((changed | is_loose) & is_seen)

        def tighten() -> tf.Tensor:
            seen = tf.gather_nd(clipped, rows)
            part = regrid(tf.gather_nd(grids, rows), tf.gather_nd(boxes, rows), seen)
            return tf.tensor_scatter_nd_update(clipped, rows, extents(part, seen))

        clipped = tf.cond(tf.size(rows) > 0, tighten, lambda: clipped)
        is_seen = tf.reduce_all(clipped[:, 2:] - clipped[:, :2] >= _MIN_SIDE, axis=1)
    return clipped, is_seen


def extents(grids: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Find the part of each box that its mask fills; no area where it fills none."""
    coverage = tf.cast(grids, tf.float32) / 255.0
    x1, x2 = _span(tf.reduce_max(coverage, axis=1), boxes[:, 0], boxes[:, 2])
    y1, y2 = _span(tf.reduce_max(coverage, axis=2), boxes[:, 1], boxes[:, 3])
    return tf.stack([x1, y1, x2, y2], axis=1)


def _span(
    profile: tf.Tensor, low: tf.Tensor, high: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Find where (G, cells) profiles over low..high first and last pass one half.

    Between the centres of cells they are straight lines, as masks are when pasted;
    so the result is finer than a cell.
    """
    start = _first_half(profile)
    cells = tf.cast(tf.shape(profile)[1], low.dtype)
    end = cells - _first_half(tf.reverse(profile, [1]))
    step = (high - low) / cells
    return low + step * start, low + step * tf.maximum(end, start)


def _first_half(profile: tf.Tensor) -> tf.Tensor:
    """Find the position, in cells, where each row first reaches 0.5."""
    is_in = profile >= 0.5
    first = tf.argmax(is_in, axis=1, output_type=tf.int32)
    before = tf.gather(profile, tf.maximum(first - 1, 0), axis=1, batch_dims=1)
    at = tf.gather(profile, first, axis=1, batch_dims=1)
    part = (0.5 - before) / tf.maximum(at - before, 1e-6) - 0.5
    inside = tf.cast(first, profile.dtype) + tf.where(first > 0, part, 0.0)
    cells = tf.cast(tf.shape(profile)[1], profile.dtype)
    return tf.where(tf.reduce_any(is_in, axis=1), inside, cells)


def _relaid(
    grids: tf.Tensor, old: tf.Tensor, new: tf.Tensor, keep: tf.Tensor, cells: int
) -> tf.Tensor:
    """Lay the masks (G, h, w) that are kept over other boxes, on grids of `cells`."""

    def of(rows: tf.Tensor) -> tf.Tensor:
        part, before, after = (tf.gather_nd(v, rows) for v in (grids, old, new))
        return regrid(part, before, after, cells)

    if grids.shape[-1] != cells:
        rows = tf.where(keep)
        shape = tf.stack([tf.size(keep), cells, cells])
        return tf.scatter_nd(tf.cast(rows, tf.int32), of(rows), shape)
    # Most boxes stay as they are: their masks need not be resampled.
    rows = tf.where(keep & tf.reduce_any(tf.abs(new - old) > _SAME, axis=1))
    return tf.cond(
        tf.size(rows) > 0,
        lambda: tf.tensor_scatter_nd_update(grids, rows, of(rows)),
        lambda: grids,
    )


def regrid(
    grids: tf.Tensor, old: tf.Tensor, new: tf.Tensor, cells: int | None = None
) -> tf.Tensor:
    """Lay masks over other boxes, on grids of `cells` x `cells`; keep the dtype."""
    cells = cells or grids.shape[-1]
    resampled = crop_masks(tf.cast(grids, tf.float32), old, new, cells)
    return cast_back(resampled, grids.dtype)
