"""Record how timm and torchvision prepare photos, and what a transformer makes of it.

`python tests/parity/record_preprocessing.py`, at the root of the repository: needs
torch, timm and torchvision, neither kvision nor TensorFlow. Writes
tests/parity/golden/preprocessing.npz, for tests/export/test_preset_preprocessing.py.
Photos and weights are functions of names and seeds.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from timm.data import create_transform
from timm.models import get_pretrained_cfg
from timm.models.vision_transformer import VisionTransformer
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.parity.seeded import image_for  # noqa: E402
from tests.parity.timm_seeded import weights_for  # noqa: E402

PATH = Path(__file__).resolve().parent / "golden" / "preprocessing.npz"
SIDE = 64
# Shrunk, shrunk much more along one side, enlarged.
SIZES = ((150, 211), (320, 97), (40, 52))
# Presets of kvision, and whose weights they are.
PRESETS = {
    "vit_ti16_augreg_imagenet1k": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_ti16_augreg_imagenet1k_384": "vit_tiny_patch16_384.augreg_in21k_ft_in1k",
    "deit_ti16_imagenet1k": "deit_tiny_patch16_224.fb_in1k",
    "deit3_s16_imagenet22k_1k": "deit3_small_patch16_224.fb_in22k_ft_in1k",
}

Transform = Callable[[Image.Image], torch.Tensor]


def of_timm(name: str) -> Transform:
    """Make what timm does to photos before these weights, for a smaller input."""
    config = get_pretrained_cfg(name)
    return create_transform(
        (3, SIDE, SIDE),
        mean=config.mean,
        std=config.std,
        interpolation=config.interpolation,
        crop_pct=config.crop_pct,
        crop_mode=config.crop_mode,
    )


def odd() -> Transform:
    """Make what torchvision does, with numbers that no model has."""
    return ImageClassification(
        crop_size=SIDE,
        resize_size=int(SIDE / 0.875),
        mean=(0.31, 0.47, 0.62),
        std=(0.11, 0.23, 0.37),
        interpolation=InterpolationMode.BILINEAR,
    )


def small() -> torch.nn.Module:
    """Build a transformer of one block with seeded weights."""
    model = VisionTransformer(
        img_size=SIDE,
        patch_size=16,
        embed_dim=96,
        depth=1,
        num_heads=3,
        num_classes=10,
    )
    weights = {
        name: torch.from_numpy(weights_for(name, tuple(value.shape)))
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(weights)
    return model.eval()


@torch.no_grad()
def main() -> None:
    """Write the file."""
    cases = {name: of_timm(theirs) for name, theirs in PRESETS.items()} | {"odd": odd()}
    photos = [Image.fromarray(image_for(i, size)) for i, size in enumerate(SIZES)]
    model = small()
    shapes = [f"{k} {tuple(v.shape)}" for k, v in model.state_dict().items()]
    versions = (torch.__version__, timm.__version__, torchvision.__version__)
    found = {
        "sizes": np.array(SIZES),
        "state_dict": np.array("\n".join(shapes)),
        "made_with": np.array("torch {}, timm {}, torchvision {}".format(*versions)),
    }
    for name, transform in cases.items():
        inputs = torch.stack([transform(photo) for photo in photos])
        logits = model(inputs).numpy()
        found[f"{name}/inputs"] = inputs.permute(0, 2, 3, 1).numpy()[:, ::5, ::5]
        found[f"{name}/logits"] = logits
        print(name, np.round(logits[:, :4], 2).tolist())
    np.savez_compressed(PATH, **found)
    print(f"{PATH.name}: {PATH.stat().st_size / 1024:.1f} KiB")


if __name__ == "__main__":
    main()
