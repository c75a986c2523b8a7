"""Record Transformers' models: `python tests/parity/record_hugging_face.py`.

Run at the root of the repository; needs torch, transformers and safetensors, neither
kvision nor TensorFlow. Writes tests/parity/golden/hugging_face_*.npz in seconds. Each
model is written to a file, its tensors are replaced by seeded ones, and it is read
again, so that names are those of files. Weights and images are functions of names and
seeds.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.parity.hugging_face_seeded import weights_for  # noqa: E402
from tests.parity.seeded import images_for, sample, summary  # noqa: E402

GOLDEN = Path(__file__).resolve().parent / "golden"
COUNT = 64  # values of each stage
IMAGES = 2
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 48,
    "patch_size": 8,
    "num_labels": 10,
}
PLAIN = {**SMALL, "intermediate_size": 128}

Size = tuple[int, int]
# A model and the size of its images.
Case = tuple[transformers.PreTrainedModel, Size]


def cases() -> dict[str, Case]:
    """Make all models that are recorded."""
    vit = transformers.ViTConfig(**PLAIN)
    deit = transformers.DeiTConfig(**PLAIN)
    swiglu = transformers.Dinov2Config(**SMALL, use_swiglu_ffn=True)
    registers = transformers.Dinov2WithRegistersConfig(**SMALL, num_register_tokens=4)
    square = (48, 48)
    classifier = transformers.ViTForImageClassification
    return {
        "vit": (classifier(vit), square),
        "vit_resampled": (classifier(vit), (40, 64)),
        "vit_features": (transformers.ViTModel(vit), square),
        "deit": (transformers.DeiTForImageClassificationWithTeacher(deit), square),
        "dinov2": (transformers.Dinov2Model(swiglu), square),
        "dinov2_registers": (
            transformers.Dinov2WithRegistersModel(registers),
            square,
        ),
    }


def seeded(model: transformers.PreTrainedModel) -> tuple[torch.nn.Module, list[str]]:
    """Return the model with seeded weights, and name and shape of its tensors."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file = Path(folder) / "model.safetensors"
        tensors = {
            name: torch.from_numpy(weights_for(name, tuple(tensor.shape)))
            for name, tensor in load_file(file).items()
        }
        save_file(tensors, file, {"format": "pt"})
        model = type(model).from_pretrained(folder)
    shapes = [f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()]
    return model.eval(), shapes


@torch.no_grad()
def record(case: Case) -> dict[str, np.ndarray]:
    """Run one model and keep some values of every stage."""
    model, shapes = seeded(case[0])
    images = torch.from_numpy(images_for(IMAGES, case[1])).permute(0, 3, 1, 2)
    resampling = {}
    if case[1] != (48, 48):
        resampling["interpolate_pos_encoding"] = True
    found = model(images / 127.5 - 1, output_hidden_states=True, **resampling)
    stages = [state.numpy() for state in found.hidden_states]
    output = found.logits if hasattr(found, "logits") else found.pooler_output
    return {
        "samples": np.stack([sample(stage, COUNT) for stage in stages]),
        "summaries": np.stack([summary(stage) for stage in stages]),
        "output": output.numpy(),
        "state_dict": np.array("\n".join(shapes)),
        "made_with": np.array(
            f"torch {torch.__version__}, transformers {transformers.__version__}"
        ),
    }


def main() -> None:
    torch.manual_seed(0)
    for name, case in cases().items():
        arrays = record(case)
        path = GOLDEN / f"hugging_face_{name}.npz"
        np.savez_compressed(path, **arrays)
        spread = " ".join(f"{s[1]:.2f}" for s in arrays["summaries"])
        print(f"{path.name}: {path.stat().st_size / 1024:.1f} KiB, rms {spread}")
        print("  output", np.round(arrays["output"][0, :5], 2))


if __name__ == "__main__":
    main()
