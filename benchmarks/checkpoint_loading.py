"""Loading ViT-L/16 in timm's layout: seconds, and memory above the built model.

    python -m benchmarks.checkpoint_loading

The file is written first, so that it is read from memory, as from a warm disk.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np

import kvision as kv
from kvision.weights import timm


def write(model: object, path: Path) -> None:
    """Write a file of the model's size with timm's names."""
    kv.weights.write_safetensors(
        path,
        {
            name: np.zeros(shape, np.float32)
            for place in timm.places(model, {})
            for name, shape in zip(place.names, place.shapes, strict=True)
        },
    )


def resident() -> int:
    """Return the bytes in memory now."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def reset_peak() -> None:
    """Let the kernel count the peak of memory from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Return the most bytes that were in memory since."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def main() -> None:
    """Print seconds and memory."""
    model = kv.models.vit("L/16")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vit_large_patch16_224.safetensors"
        write(model, path)
        reset_peak()
        built, start, work = resident(), time.perf_counter(), time.process_time()
        kv.weights.load(model, path)
        seconds, work = time.perf_counter() - start, time.process_time() - work
        size = path.stat().st_size
        print(f"{size / 1e9:.2f} GB: {seconds:.1f} s, {work:.1f} s of processor time")
        print(f"peak above the built model: {(peak() - built) / size:.2f} of the file")


if __name__ == "__main__":
    main()
