"""Record timm's transformers stage by stage: `python tests/parity/record_timm.py`.

Run at the root of the repository; needs torch and timm, neither kvision nor
TensorFlow. Writes tests/parity/golden/timm_*.npz in some minutes; the tests read them
and need no torch. Weights and images are functions of names and seeds.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.parity.seeded import images_for, sample, summary  # noqa: E402
from tests.parity.timm_seeded import weights_for  # noqa: E402

GOLDEN = Path(__file__).resolve().parent / "golden"
COUNT = 64  # values of each stage
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

Arrays = dict[str, np.ndarray]
# A model, the size of its images, their mean and standard deviation, how many.
Case = tuple[torch.nn.Module, tuple[int, int], tuple, int]


def small(depth: int = 3, **arguments: object) -> VisionTransformer:
    """Build a transformer as wide as ViT-Ti and less deep."""
    sizes = {"patch_size": 16, "embed_dim": 192, "depth": depth, "num_heads": 3}
    return VisionTransformer(num_classes=10, **{**sizes, **arguments})


def published(name: str, **arguments: object) -> torch.nn.Module:
    return timm.create_model(name, num_classes=10, **arguments)


def cases() -> dict[str, Case]:
    """Make all models that are recorded."""
    odd = (96, 128)
    clip = partial(torch.nn.LayerNorm, eps=1e-5)
    return {
        "vit_tiny": (published("vit_tiny_patch16_224"), (224, 224), HALVES, 2),
        "vit_tiny_resampled": (
            published("vit_tiny_patch16_224", dynamic_img_size=True),
            (160, 288),
            HALVES,
            2,
        ),
        "vit_base": (published("vit_base_patch16_224"), (224, 224), HALVES, 1),
        "qk_norm": (small(img_size=odd, qk_norm=True), odd, HALVES, 2),
        "registers": (
            small(img_size=odd, reg_tokens=4, no_embed_class=True, init_values=0.1),
            odd,
            HALVES,
            2,
        ),
        "registers_average": (
            small(
                img_size=odd,
                reg_tokens=4,
                no_embed_class=True,
                class_token=False,
                global_pool="avg",
                fc_norm=True,
            ),
            odd,
            HALVES,
            2,
        ),
        "token_and_registers_average": (
            small(img_size=odd, reg_tokens=2, global_pool="avg", fc_norm=False),
            odd,
            HALVES,
            2,
        ),
        "dinov2": (
            small(
                img_size=(98, 126),
                patch_size=14,
                init_values=1e-5,
                mlp_ratio=2.66667 * 2,
                mlp_layer=SwiGLUPacked,
                act_layer=torch.nn.SiLU,
            ),
            (98, 126),
            IMAGENET,
            2,
        ),
        "attention_pooling": (
            small(img_size=odd, class_token=False, global_pool="map"),
            odd,
            HALVES,
            2,
        ),
        "clip": (
            small(img_size=odd, pre_norm=True, norm_layer=clip, act_layer="quick_gelu"),
            odd,
            HALVES,
            2,
        ),
        "deit_tiny_distilled": (
            published("deit_tiny_distilled_patch16_224"),
            (224, 224),
            IMAGENET,
            2,
        ),
        "deit_small_distilled": (
            published("deit_small_distilled_patch16_224"),
            (224, 224),
            IMAGENET,
            1,
        ),
        "deit3_small": (
            published("deit3_small_patch16_224", img_size=odd),
            odd,
            IMAGENET,
            2,
        ),
        "r26_s32": (
            published("vit_small_r26_s32_224", img_size=(128, 160)),
            (128, 160),
            HALVES,
            2,
        ),
        "r_ti16": (
            published("vit_tiny_r_s16_p8_224", img_size=odd),
            odd,
            HALVES,
            2,
        ),
        "twins_svt": (published("twins_svt_small"), (224, 224), IMAGENET, 2),
        "twins_pcpvt": (
            published("twins_pcpvt_small", img_size=(96, 160)),
            (96, 160),
            IMAGENET,
            2,
        ),
    }


def seed(model: torch.nn.Module) -> None:
    """Set every weight by its name."""
    weights = {
        name: torch.from_numpy(weights_for(name, tuple(value.shape)))
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(weights)


def blocks_of(model: torch.nn.Module) -> list[torch.nn.Module]:
    """List the modules whose outputs are stages: Twins have positions in between."""
    if not hasattr(model, "pos_block"):
        return list(model.blocks)
    return [
        model.pos_block[stage] if index == 0 else block
        for stage, blocks in enumerate(model.blocks)
        for index, block in enumerate(blocks)
    ]


@torch.no_grad()
def record(case: Case) -> Arrays:
    """Run one model and keep some values of every stage."""
    model, size, (mean, std), count = case
    seed(model.eval())
    found: dict[str, np.ndarray] = {}
    blocks = blocks_of(model)
    first = model.blocks[0][0] if hasattr(model, "pos_block") else model.blocks[0]
    first.register_forward_pre_hook(keep(found, "embedded", of_input=True))
    for index, block in enumerate(blocks):
        block.register_forward_hook(keep(found, f"block_{index}"))
    model.head.register_forward_pre_hook(keep(found, "pooled", of_input=True))
    images = torch.from_numpy(images_for(count, size)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (mean, std))
    logits = model((images - mean) / std).numpy()
    stages = ["embedded", *(f"block_{i}" for i in range(len(blocks))), "pooled"]
    shapes = [f"{k} {tuple(v.shape)}" for k, v in model.state_dict().items()]
    return {
        "stages": np.array(stages),
        "samples": np.stack([sample(found[stage], COUNT) for stage in stages]),
        "summaries": np.stack([summary(found[stage]) for stage in stages]),
        "logits": logits,
        "state_dict": np.array("\n".join(shapes)),
        "made_with": np.array(f"torch {torch.__version__}, timm {timm.__version__}"),
    }


def keep(found: dict[str, np.ndarray], name: str, of_input: bool = False):
    """Make a hook that keeps what goes in or comes out, channels last."""

    def hook(_module: object, inputs: tuple, output: object = None) -> None:
        found[name] = (inputs[0] if of_input else output).numpy()

    return hook


def main() -> None:
    torch.set_num_threads(2)
    GOLDEN.mkdir(exist_ok=True)
    chosen = sys.argv[1:]
    for name, case in cases().items():
        if chosen and name not in chosen:
            continue
        arrays = record(case)
        path = GOLDEN / f"timm_{name}.npz"
        np.savez_compressed(path, **arrays)
        spread = " ".join(f"{s[1]:.2f}" for s in arrays["summaries"])
        print(f"{path.name}: {path.stat().st_size / 1024:.1f} KiB, rms {spread}")
        print("  logits", np.round(arrays["logits"][0, :5], 2))


if __name__ == "__main__":
    main()
