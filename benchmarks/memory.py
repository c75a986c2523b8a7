"""Resident memory of this process, as Linux counts it."""

import os
from pathlib import Path

__all__ = ["peak_megabytes", "resident_megabytes"]


def resident_megabytes() -> float:
    """Return the resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_megabytes() -> float:
    """Return the largest resident memory this process ever had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
