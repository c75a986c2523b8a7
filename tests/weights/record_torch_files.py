"""Record the files of tests/weights/golden: small files of torch and their values.

    python tests/weights/record_torch_files.py    # torch 2.15.0, torchvision not needed

Each file of torch has beside it an .npz with what torch reads from it.
"""

import argparse
import collections
from pathlib import Path
from typing import Any

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"


def tensors() -> dict[str, Any]:
    """One tensor of every kind that weight files have."""
    torch.manual_seed(0)
    shared = torch.arange(24.0)
    return collections.OrderedDict(
        weight=torch.randn(3, 4),
        transposed=torch.randn(3, 4).t(),
        strided=torch.arange(20)[2::3],
        shared_matrix=shared.view(4, 6),
        shared_part=shared[5:9],
        expanded=torch.arange(5).expand(1, 5),
        bfloat16=torch.randn(5).bfloat16(),
        float16=torch.randn(2, 3).half(),
        float64=torch.randn(3).double(),
        int64=torch.tensor([-(2**62), 0, 2**40]),
        int32=torch.arange(3, dtype=torch.int32),
        uint8=torch.arange(3, dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        scalar=torch.tensor(7),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
    )


def newer() -> dict[str, Any]:
    """Types for which torch has no storage type: its third way to write a tensor."""
    return {
        "float8": torch.arange(4.0).to(torch.float8_e4m3fn),
        "uint16": torch.tensor([1, 2, 65535], dtype=torch.uint16),
    }


def training() -> dict[str, Any]:
    """What a training script saves, its model in DataParallel."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return {
        "model": torch.nn.DataParallel(model).state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "best": torch.tensor(0.5),
        "args": argparse.Namespace(lr=1e-3, sizes=[224, 384]),
    }


def refused() -> dict[str, Any]:
    """Tensors that are more than a view of a storage."""
    return {
        "quantised": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "sparse": torch.eye(2).to_sparse(),
    }


def values(found: dict[str, Any]) -> dict[str, np.ndarray]:
    """Values for NumPy, which has no bfloat16 and no 8-bit floats."""
    strange = (torch.bfloat16, torch.float8_e4m3fn)
    return {
        name: (tensor.float() if tensor.dtype in strange else tensor).detach().numpy()
        for name, tensor in found.items()
    }


def record(name: str, content: Any, state: dict[str, Any], **options: Any) -> None:
    """Write a file of torch and its values."""
    torch.save(content, GOLDEN / f"{name}.pth", **options)
    np.savez_compressed(GOLDEN / f"{name}.npz", **values(state))


def main() -> None:
    """Write all files."""
    GOLDEN.mkdir(exist_ok=True)
    legacy = {"_use_new_zipfile_serialization": False}
    state = tensors()
    record("zip", state, state)
    record("legacy", state, state, **legacy)
    record("protocol4", state, state, pickle_protocol=4)
    record("newer", newer(), newer())
    content = training()
    record("training", content, content["model"])
    for kind, tensor in refused().items():
        torch.save({kind: tensor}, GOLDEN / f"{kind}.pth")
    torch.jit.script(torch.nn.Linear(2, 2)).save(GOLDEN / "torchscript.pth")
    torch.serialization.set_crc32_options(False)
    record("no_checksums", newer(), newer())


if __name__ == "__main__":
    main()
