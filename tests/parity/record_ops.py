"""Record what torchvision's detection ops compute, into tests/golden.

Run by `record_torchvision.py`; needs torch and torchvision 0.29. Inputs are stored
with the outputs, so that a test reads one file and nothing else.
"""

import numpy as np
import torch
from seeded import uniform
from torch.nn import functional
from torchvision.models.detection import _utils as detection_utils
from torchvision.models.detection import roi_heads
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, boxes, poolers, roi_align

Arrays = dict[str, np.ndarray]

# Powers of two, a size that no stride divides, and the default size of the model, at
# which P6 has 13 rows and torchvision's stride is 800 // 13 = 61, not 64.
ANCHOR_IMAGE_SIZES = {"even": (256, 320), "odd": (203, 317), "default": (800, 1088)}
ANCHOR_SIZES = (32, 64, 128, 256, 512)
BOX_DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def random_boxes(name: str, count: int, size: tuple[int, int]) -> np.ndarray:
    """Boxes of all sizes inside an image (height, width)."""
    limit = np.array([size[1], size[0]], np.float32)
    a, b = uniform(name, (2, count, 2), 0, 1)
    side = np.maximum(b * b * 0.7, 0.01)
    start = a * (1 - side)
    return np.concatenate([start * limit, (start + side) * limit], 1).astype("f4")


def ceil_halvings(size: tuple[int, int], level: int) -> tuple[int, int]:
    """Size of pyramid level P2 and up: every stride-2 layer rounds up."""
    for _ in range(level):
        size = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    return size


def anchors() -> Arrays:
    """Anchors of five levels; whole numbers, hence int16."""
    recorded = {}
    for name, size in ANCHOR_IMAGE_SIZES.items():
        grids = [ceil_halvings(size, level) for level in range(2, 7)]
        generator = AnchorGenerator(
            tuple((s,) for s in ANCHOR_SIZES), ((0.5, 1.0, 2.0),) * 5
        )
        images = ImageList(torch.zeros(1, 3, *size), [size])
        flat = generator(images, [torch.zeros(1, 1, *g) for g in grids])[0]
        parts = flat.split([3 * h * w for h, w in grids])
        first = 2 if name == "default" else 0  # P2, P3 of 800 px are large files
        for level in range(first, 5):
            values = parts[level].numpy()
            assert (values == np.round(values)).all()
            recorded[f"{name}/P{level + 2}"] = values.astype(np.int16)
    several = AnchorGenerator(((16, 24, 40),), ((0.5, 1.0, 3.0),))
    images = ImageList(torch.zeros(1, 3, 48, 64), [(48, 64)])
    recorded["several_sizes"] = several(images, [torch.zeros(1, 1, 3, 4)])[0].numpy()
    return recorded


def box_coding() -> Arrays:
    references = random_boxes("coding references", 40, (256, 320))
    objects = random_boxes("coding objects", 40, (256, 320))
    deltas = uniform("coding deltas", (40, 4), -3, 3)
    deltas[:6, 2:] = [[4.2, 0], [0, 9], [30, 30], [50, -50], [4.1351, 4.1352], [-90, 0]]
    recorded = {"references": references, "objects": objects, "deltas": deltas}
    for name, weights in {"ones": (1.0,) * 4, "head": BOX_DELTA_WEIGHTS}.items():
        coder = detection_utils.BoxCoder(weights)
        encoded = coder.encode_single(tensor(objects), tensor(references))
        decoded = coder.decode_single(tensor(deltas), tensor(references))
        recorded[f"encoded_{name}"] = encoded.numpy()
        recorded[f"decoded_{name}"] = decoded.numpy()
    return recorded


def box_iou() -> Arrays:
    first = random_boxes("iou first", 30, (100, 120))
    second = random_boxes("iou second", 20, (100, 120))
    first[0] = [10, 10, 20, 20]
    second[:5] = [
        [20, 10, 30, 20],  # touches
        [10, 10, 20, 20],  # equals
        [12, 12, 14, 14],  # lies inside
        [15, 15, 15, 18],  # is empty
        [50, 50, 90, 90],  # is far away
    ]
    iou = boxes.box_iou(tensor(first), tensor(second))
    return {"first": first, "second": second, "iou": iou.numpy()}


def matching() -> Arrays:
    """Matches of a grid of anchors, where ties are common, to some boxes."""
    generator = AnchorGenerator(((32,), (64,)), ((0.5, 1.0, 2.0),) * 2)
    images = ImageList(torch.zeros(1, 3, 128, 160), [(128, 160)])
    grids = [torch.zeros(1, 1, 16, 20), torch.zeros(1, 1, 8, 10)]
    candidates = generator(images, grids)[0]
    objects = tensor(
        np.array(
            [
                [12, 12, 52, 52],  # half way between cells: four best anchors
                [0, 0, 128, 128],  # larger than any anchor
                [100, 40, 107, 47],  # smaller than any anchor: many equal overlaps
                [40, 40, 104, 104],  # a few above 0.7
                [44, 40, 108, 104],  # the same anchors compete
                [3.3, 70.2, 35.7, 101.9],
                [150, 120, 160, 128],  # in the corner
            ],
            np.float32,
        )
    )
    iou = boxes.box_iou(objects, candidates)
    rpn = detection_utils.Matcher(0.7, 0.3, allow_low_quality_matches=True)
    head = detection_utils.Matcher(0.5, 0.5, allow_low_quality_matches=False)
    strict = detection_utils.Matcher(0.7, 0.3, allow_low_quality_matches=False)
    return {
        "candidates": candidates.numpy(),
        "objects": objects.numpy(),
        "rpn": rpn(iou).numpy().astype(np.int16),
        "head": head(iou).numpy().astype(np.int16),
        "strict": strict(iou).numpy().astype(np.int16),
    }


def suppression() -> Arrays:
    """Kept indices of clustered boxes, without and with groups."""
    recorded = {}
    for count in (300, 1500):  # torchvision changes its algorithm at 1000 boxes
        centres = random_boxes(f"nms centres {count}", count // 10, (256, 320))
        jitter = uniform(f"nms jitter {count}", (count, 4), -12, 12)
        found = np.repeat(centres, 10, axis=0) + jitter
        found = np.concatenate([np.minimum(found[:, :2], found[:, 2:]),
                                np.maximum(found[:, :2], found[:, 2:])], 1)  # fmt: skip
        scores = uniform(f"nms scores {count}", (count,), 0, 1)
        groups = (np.arange(count) * 7 // 3 % 5).astype(np.int64)
        recorded |= {f"boxes_{count}": found, f"scores_{count}": scores}
        recorded[f"groups_{count}"] = groups.astype(np.int16)
        for threshold in (0.5, 0.7):
            kept = boxes.nms(tensor(found), tensor(scores), threshold)
            grouped = boxes.batched_nms(
                tensor(found), tensor(scores), tensor(groups), threshold
            )
            recorded[f"kept_{count}_{threshold}"] = kept.numpy().astype(np.int16)
            recorded[f"grouped_{count}_{threshold}"] = grouped.numpy().astype(np.int16)
    return recorded


# Over a 64 x 96 image.
ROIS = np.array(
    [
        [8, 8, 40, 40],
        [0, 0, 96, 64],  # the whole image
        [3.3, 5.7, 61.2, 22.9],
        [70.5, 30.25, 95.75, 63.5],
        [-20, -12, 30, 20],  # over the top left corner
        [80, 50, 130, 90],  # over the bottom right corner
        [20, 20, 20.5, 20.5],  # smaller than a pixel
        [33, 17, 33, 17],  # a point
        [40, 10, 40, 50],  # no width
        [120, 90, 140, 110],  # outside, within reach of the border
        [300, 300, 340, 360],  # far outside
        [-90, -90, -60, -50],
        [95.9, 63.9, 96, 64],  # the last corner
        [0, 0, 1, 1],
    ],
    np.float32,
)
ROI_IMAGES = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1], np.float32)


def single_level_roi_align() -> Arrays:
    """Pooled values of one feature map and the gradient that reaches it."""
    features = uniform("roi features", (2, 3, 16, 24), -1, 1)
    recorded = {"features": features.transpose(0, 2, 3, 1), "rois": ROIS}
    recorded["roi_images"] = ROI_IMAGES.astype(np.int32)
    rois = tensor(np.concatenate([ROI_IMAGES[:, None], ROIS], axis=1))
    for aligned in (False, True):
        for cells, ratio in ((7, 2), (2, 1), (3, 3)):
            source = tensor(features).requires_grad_()
            pooled = roi_align(source, rois, (cells, cells), 0.25, ratio, aligned)
            upstream = tensor(uniform(f"upstream {cells}", tuple(pooled.shape), -1, 1))
            (gradient,) = torch.autograd.grad((pooled * upstream).sum(), source)
            key = f"{'aligned' if aligned else 'unaligned'}_{cells}_{ratio}"
            recorded[key] = pooled.detach().numpy().transpose(0, 2, 3, 1)
            recorded[f"{key}_gradient"] = gradient.numpy().transpose(0, 2, 3, 1)
            upstream = upstream.numpy().transpose(0, 2, 3, 1)
            recorded[f"upstream_{cells}_{ratio}"] = upstream
    return recorded


def multilevel_roi_align() -> Arrays:
    """Pooling from P2..P5 of two 256 x 320 images, RoIs of every level."""
    size = (256, 320)
    maps = {
        f"P{level}": uniform(f"P{level}", (2, 2, *ceil_halvings(size, level)), -1, 1)
        for level in range(2, 6)
    }
    rois = np.stack([random_boxes(f"multilevel {i}", 12, size) for i in range(2)])
    sides = np.array([111.9, 112, 112.1, 223.9, 224, 20])  # around the boundaries
    rois[0, :6] = np.stack([sides * 0 + 5, sides * 0 + 9, sides + 5, sides + 9], 1)
    rois[1, :2] = [[0, 0, 320, 256], [-60, -80, 420, 400]]  # the second is for P5
    pool = MultiScaleRoIAlign(list(maps), output_size=7, sampling_ratio=2)
    pooled = pool(
        {name: tensor(values) for name, values in maps.items()},
        [tensor(r) for r in rois],
        [size, size],
    )
    recorded = {name: v.transpose(0, 2, 3, 1) for name, v in maps.items()}
    pooled = pooled.numpy().transpose(0, 2, 3, 1).reshape(2, 12, 7, 7, 2)
    return recorded | {"rois": rois, "pooled": pooled}


def roi_levels() -> Arrays:
    """Levels of squares and slivers whose areas straddle every boundary."""
    sides = [0, 1, 55.9, 56, 111.99, 112, 112.01, 223.999, 224, 224.001, 447.9]
    sides += [448, 448.1, 895.9, 896, 1500]
    rows = [[3, 7, 3 + s, 7 + s] for s in sides]
    rows += [[0, 0, 4 * s, s / 4] for s in sides]
    rois = np.array(rows, np.float32)
    levels = poolers.LevelMapper(2, 5)([tensor(rois)])
    return {"rois": rois, "levels": levels.numpy().astype(np.int16) + 2}


def mask_bitmaps(count: int, size: tuple[int, int], found: np.ndarray) -> np.ndarray:
    """Ellipses with a bite taken out, each filling its box: (count, H, W) uint8."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    masks = []
    for box in found.astype(np.float64)[:count]:
        u = (x - box[0]) / (box[2] - box[0]) * 2 - 1
        v = (y - box[1]) / (box[3] - box[1]) * 2 - 1
        masks.append((u**2 + v**2 <= 1) & ~((u > 0.1) & (v > 0.2)))
    return np.stack(masks).astype(np.uint8)


def mask_targets() -> Arrays:
    """Masks cropped to RoIs: torchvision pools the whole bitmap, unaligned."""
    size = (128, 160)
    objects = np.array(
        [
            [20, 16, 76, 72],  # 56 x 56 whole pixels: a crop of 56 cells is the bitmap
            [90, 40, 146, 96],
            [10.5, 60.25, 101.75, 120],
            [100, 5, 112, 30],
        ],
        np.float32,
    )
    masks = mask_bitmaps(4, size, objects)
    shift = uniform("mask rois", (16, 4), -6, 6)
    indices = np.arange(16) % 4
    rois = np.concatenate([objects, objects[indices] + shift])
    rois[:, :2] = np.maximum(rois[:, :2], 0)
    rois[:, 2:] = np.maximum(rois[:, :2] + 2, rois[:, 2:])
    rois = np.minimum(rois, [160, 128, 160, 128]).astype(np.float32)
    indices = np.concatenate([np.arange(4), indices])
    cropped = roi_heads.project_masks_on_boxes(
        tensor(masks), tensor(rois), tensor(indices), 28
    )
    return {
        "bitmaps": np.packbits(masks, axis=-1),
        "objects": objects,
        "rois": rois,
        "indices": indices.astype(np.int16),
        "targets": cropped.numpy(),
    }


def mask_pasting() -> Arrays:
    """Masks laid into a 90 x 120 image, boxes cut to whole pixels."""
    rows = [
        [10, 10, 60, 70],
        [10.4, 10.6, 60.5, 70.49],
        [-15.5, -8.2, 40.3, 33.3],
        [90, 60, 150, 120],
        [50, 50, 50.2, 50.3],
        [0, 0, 120, 90],
        [30.7, 5.2, 33.1, 84.8],
        [5, 40, 115, 43.5],
    ]
    found = np.array(rows, np.float32)
    smooth = uniform("paste", (8, 1, 7, 7), 0, 1)
    masks = functional.interpolate(
        tensor(smooth), size=(28, 28), mode="bilinear", align_corners=False
    )
    pasted = roi_heads.paste_masks_in_image(masks, tensor(found), (90, 120))[:, 0]
    recorded = {"masks": masks[:, 0].numpy(), "boxes": found}
    recorded["above_half"] = np.packbits(pasted.numpy() > 0.5, axis=-1)
    return recorded | {"pasted": pasted.numpy().astype(np.float32)[:4]}


def losses() -> Arrays:
    """Losses of one element each."""
    errors = uniform("loss predictions", (60,), -2, 2)
    targets = uniform("loss targets", (60,), -1, 1)
    logits = uniform("loss logits", (20, 6), -9, 9)
    logits[0] = [80, -80, 0, 0, 0, 0]
    labels = (np.arange(20) * 5 % 6).astype(np.int64)
    binary = uniform("loss binary", (60,), -40, 40)
    soft = uniform("loss soft", (60,), 0, 1)
    recorded = {"predictions": errors, "targets": targets, "logits": logits}
    recorded |= {"labels": labels.astype(np.int16), "binary": binary, "soft": soft}
    for name, beta in (("ninth", 1 / 9), ("one", 1.0)):
        recorded[f"smooth_l1_{name}"] = functional.smooth_l1_loss(
            tensor(errors), tensor(targets), beta=beta, reduction="none"
        ).numpy()
    recorded["l1"] = functional.smooth_l1_loss(
        tensor(errors), tensor(targets), beta=0.0, reduction="none"
    ).numpy()
    recorded["sigmoid"] = functional.binary_cross_entropy_with_logits(
        tensor(binary), tensor(soft), reduction="none"
    ).numpy()
    recorded["softmax"] = functional.cross_entropy(
        tensor(logits), tensor(labels), reduction="none"
    ).numpy()
    return recorded


SECTIONS = {
    "anchors": anchors,
    "box_coding": box_coding,
    "box_iou": box_iou,
    "matching": matching,
    "nms": suppression,
    "roi_align": single_level_roi_align,
    "multilevel_roi_align": multilevel_roi_align,
    "roi_levels": roi_levels,
    "mask_targets": mask_targets,
    "mask_pasting": mask_pasting,
    "losses": losses,
}


def record() -> Arrays:
    """Record every op; names are "section/array"."""
    return {
        f"{section}/{name}": array
        for section, make in SECTIONS.items()
        for name, array in make().items()
    }
