"""Which precision this machine trains fastest in."""

import time

import keras

__all__ = ["fastest_policy"]


def fastest_policy(least_gain: float = 1.5) -> str:
    """Measure whether matrix products are faster in bfloat16 here.

    Processors with instructions for bfloat16 train two to three times faster with it;
    others convert to float32 and back and are slower. It takes some hundredths of a
    second.

    Args:
        least_gain: how many times faster bfloat16 must be to be chosen.

    Returns:
        "mixed_bfloat16" or "float32".
    """
    seconds = {dtype: _seconds_of_product(dtype) for dtype in ("float32", "bfloat16")}
    gain = seconds["float32"] / seconds["bfloat16"]
    return "mixed_bfloat16" if gain >= least_gain else "float32"


def _seconds_of_product(dtype: str, size: int = 1024, repeats: int = 5) -> float:
    matrix = keras.ops.ones((size, size), dtype=dtype)

    def once() -> float:
        start = time.perf_counter()
        # One number of the result is read: some backends compute when asked.
        float(keras.ops.matmul(matrix, matrix)[0, 0])
        return time.perf_counter() - start

    once()
    return min(once() for _ in range(repeats))
