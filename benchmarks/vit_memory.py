"""Memory of a training step of ViT-B/16: float32, bfloat16, gradient checkpointing.

    python -m benchmarks.vit_memory

One process for each kind. Memory is the peak resident size less what is resident once
model and optimizer are built; seconds are those of the fastest step after the first.
"""

import argparse
import json
import sys
import time
from typing import Any

from benchmarks.memory import peak_megabytes, resident_megabytes
from benchmarks.processes import run

KINDS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "mixed_bfloat16"},
    "float32, checkpointing": {"dtype": "float32", "recompute": True},
    "bfloat16, checkpointing": {"dtype": "mixed_bfloat16", "recompute": True},
}


def measure(kind: str, variant: str, batch_size: int, steps: int) -> dict[str, Any]:
    """Train a few steps in this process."""
    import keras
    import numpy as np

    import kvision as kv

    keras.utils.set_random_seed(0)
    model = kv.models.vit(variant, **KINDS[kind])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-4), loss, jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, 224, 224, 3)).astype(np.uint8)
    labels = rng.integers(0, 1000, batch_size)
    before = resident_megabytes()
    seconds, losses = [], []
    for _ in range(steps):
        start = time.perf_counter()
        losses.append(float(model.train_on_batch(images, labels)))
        seconds.append(time.perf_counter() - start)
    return {
        "built_mb": round(before),
        "step_mb": round(peak_megabytes() - before),
        "first_step_seconds": round(seconds[0], 1),
        "step_seconds": round(min(seconds[1:]), 2),
        "losses": [round(value, 4) for value in losses],
    }


def main() -> None:
    """Measure every kind, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="B/16")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--kind", choices=KINDS)
    options = parser.parse_args()
    sizes = (options.variant, options.batch_size, options.steps)
    if options.kind:
        print(json.dumps(measure(options.kind, *sizes)))
        return
    for kind in KINDS:
        command = [sys.executable, "-m", "benchmarks.vit_memory", "--kind", kind]
        command += ["--variant", sizes[0], "--batch-size", str(sizes[1])]
        print(kind, run([*command, "--steps", str(sizes[2])]), flush=True)


if __name__ == "__main__":
    main()
