"""Balanced random samples of fixed size, as a pure function of a seed."""

from typing import Any

from keras import ops

from kvision.ops.matching import IGNORED, NEGATIVE, POSITIVE

__all__ = ["balanced_sample", "random_keys"]

Tensor = Any


def random_keys(shape: tuple[Any, ...], seed: Tensor) -> Tensor:
    """Draw uniform random numbers that depend on nothing but the seed.

    A counter is hashed with the seed, so that training can be resumed and validation
    repeated exactly on every backend. `keras.random` takes no tensor as a seed.

    Args:
        shape: shape of the result; entries may be scalar tensors.
        seed: scalar int32 tensor.

    Returns:
        float32 tensor in [0, 1).

    Source: the 32-bit finaliser of MurmurHash3 (Appleby, public domain).
    """
    count = 1
    for size in shape:
        count = count * size
    counter = ops.cast(ops.arange(count, dtype="int32"), "uint32")
    # An odd multiplier of the seed keeps neighbouring seeds from sharing counters.
    bits = counter + ops.cast(seed, "uint32") * _uint32(0x9E3779B1)
    for multiplier, shift in ((0x85EBCA6B, 16), (0xC2B2AE35, 13), (0x27D4EB2F, 16)):
        bits = ops.bitwise_xor(bits, ops.right_shift(bits, _uint32(shift)))
        bits = bits * _uint32(multiplier)
    bits = ops.bitwise_xor(bits, ops.right_shift(bits, _uint32(15)))
    # 24 bits are what float32 holds exactly; a detour through int32 because some
    # kernels cannot cast uint32 to a float.
    mantissa = ops.cast(ops.right_shift(bits, _uint32(8)), "int32")
    return ops.reshape(ops.cast(mantissa, "float32") * 2.0**-24, shape)


def _uint32(value: int) -> Tensor:
    return ops.convert_to_tensor(value, dtype="uint32")


def balanced_sample(
    verdicts: Tensor, keys: Tensor, num_samples: int, positive_fraction: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose positives and negatives at random, positives first.

    At most `num_samples * positive_fraction` positives are taken; negatives fill the
    rest as far as there are enough.

    Args:
        verdicts: (B, N) int32 tensor as made by `matching.match`.
        keys: (B, N) float tensor in [0, 1); candidates with the largest keys win.
        num_samples: number of slots S.
        positive_fraction: largest share of positives, in [0, 1].

    Returns:
        indices: (B, S) int32 tensor of rows of the N candidates.
        is_positive: (B, S) bool tensor; True in the first slots.
        is_used: (B, S) bool tensor; False in the last slots where candidates are few.
    """
    last = ops.shape(verdicts)[1] - 1
    if verdicts.shape[1] is None or verdicts.shape[1] < num_samples:
        # top_k needs as many candidates as it returns.
        verdicts = ops.pad(
            verdicts, [(0, 0), (0, num_samples)], constant_values=IGNORED
        )
        keys = ops.pad(keys, [(0, 0), (0, num_samples)])
    max_positives = int(num_samples * positive_fraction)
    positives, num_positives = _choose(verdicts == POSITIVE, keys, max_positives)
    negatives, num_negatives = _choose(verdicts == NEGATIVE, keys, num_samples)

    slots = ops.arange(num_samples, dtype="int32")[None, :]
    is_positive = slots < num_positives
    is_used = slots < num_positives + num_negatives
    sources = ops.where(is_positive, slots, slots - num_positives + max_positives)
    choices = ops.concatenate([positives, negatives], axis=1)
    indices = ops.take_along_axis(choices, sources, axis=1)
    return ops.minimum(indices, last), is_positive, is_used


def _choose(eligible: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return (B, count) rows with eligible ones first and the (B, 1) number of them."""
    _, indices = ops.top_k(ops.where(eligible, keys, -1.0), k=max(count, 1))
    available = ops.sum(ops.cast(eligible, "int32"), axis=1, keepdims=True)
    return ops.cast(indices, "int32")[:, :count], ops.minimum(available, count)
