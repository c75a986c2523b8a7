"""Record what timm and torchvision say of their weights.

`python tests/parity/record_presets.py` needs torch, timm and torchvision, neither
kvision nor TensorFlow, and no network: it reads what the packages hold, and counts the
parameters of models that are never filled. Writes tests/parity/golden/presets.json,
with which tests/models/test_presets.py compares `kvision.models.presets.PRESETS`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from timm.models import get_pretrained_cfg
from torchvision.models import get_model_weights, list_models

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.parity.names import hash_of

PATH = Path(__file__).resolve().parent / "golden" / "presets.json"

NAMES = """
vit_tiny_patch16_224.augreg_in21k_ft_in1k vit_tiny_patch16_384.augreg_in21k_ft_in1k
vit_small_patch32_224.augreg_in21k_ft_in1k vit_small_patch32_384.augreg_in21k_ft_in1k
vit_small_patch16_224.augreg_in21k_ft_in1k vit_small_patch16_384.augreg_in21k_ft_in1k
vit_base_patch32_224.augreg_in21k_ft_in1k vit_base_patch32_384.augreg_in21k_ft_in1k
vit_base_patch16_224.augreg_in21k_ft_in1k vit_base_patch16_384.augreg_in21k_ft_in1k
vit_large_patch16_224.augreg_in21k_ft_in1k vit_large_patch16_384.augreg_in21k_ft_in1k
vit_tiny_r_s16_p8_224.augreg_in21k_ft_in1k vit_tiny_r_s16_p8_384.augreg_in21k_ft_in1k
vit_small_r26_s32_224.augreg_in21k_ft_in1k vit_small_r26_s32_384.augreg_in21k_ft_in1k
vit_large_r50_s32_224.augreg_in21k_ft_in1k vit_large_r50_s32_384.augreg_in21k_ft_in1k
deit_tiny_patch16_224.fb_in1k deit_tiny_distilled_patch16_224.fb_in1k
deit_small_patch16_224.fb_in1k deit_small_distilled_patch16_224.fb_in1k
deit_base_patch16_224.fb_in1k deit_base_distilled_patch16_224.fb_in1k
deit_base_patch16_384.fb_in1k deit_base_distilled_patch16_384.fb_in1k
deit3_small_patch16_224.fb_in1k deit3_small_patch16_224.fb_in22k_ft_in1k
deit3_small_patch16_384.fb_in1k deit3_small_patch16_384.fb_in22k_ft_in1k
deit3_medium_patch16_224.fb_in1k deit3_medium_patch16_224.fb_in22k_ft_in1k
deit3_base_patch16_224.fb_in1k deit3_base_patch16_224.fb_in22k_ft_in1k
deit3_base_patch16_384.fb_in1k deit3_base_patch16_384.fb_in22k_ft_in1k
deit3_large_patch16_224.fb_in1k deit3_large_patch16_224.fb_in22k_ft_in1k
deit3_large_patch16_384.fb_in1k deit3_large_patch16_384.fb_in22k_ft_in1k
deit3_huge_patch14_224.fb_in1k deit3_huge_patch14_224.fb_in22k_ft_in1k
twins_svt_small.in1k twins_svt_base.in1k twins_svt_large.in1k
twins_pcpvt_small.in1k twins_pcpvt_base.in1k twins_pcpvt_large.in1k
"""


def of_timm(name: str) -> dict[str, Any]:
    """Read the configuration of weights, and count those of their model."""
    config = get_pretrained_cfg(name)
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    return {
        "repository": config.hf_hub_id,
        "licence": config.license,
        "parameters": sum(one.numel() for one in model.parameters()),
        "tensors": hash_of({k: tuple(v.shape) for k, v in model.state_dict().items()}),
        "image_size": config.input_size[1:],
        "crop_fraction": config.crop_pct,
        "crop_mode": config.crop_mode,
        "interpolation": config.interpolation,
        "mean": config.mean,
        "std": config.std,
    }


def of_torchvision() -> dict[str, Any]:
    """Read the metadata of all weights of R-CNNs, by address."""
    names = [
        name for name in list_models(torchvision.models.detection) if "rcnn" in name
    ]
    return {
        weights.url: {
            "parameters": weights.meta["num_params"],
            "published": weights.meta["_metrics"],
            "classes": weights.meta["categories"],
        }
        for name in names
        for weights in get_model_weights(name)
    }


def main() -> None:
    """Write the file."""
    versions = f"timm {timm.__version__}, torchvision {torchvision.__version__}"
    imagenet = torchvision.models.ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    found = {
        "made_with": versions,
        "timm": {name: of_timm(name) for name in NAMES.split()},
        "torchvision": of_torchvision(),
        "imagenet": imagenet,
    }
    PATH.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{PATH.name}: {PATH.stat().st_size / 1024:.1f} KiB, {versions}")


if __name__ == "__main__":
    main()
