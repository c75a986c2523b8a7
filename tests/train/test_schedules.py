"""Learning rates, by hand."""

import keras
import numpy as np
import pytest

from kvision.train.schedules import WarmupCosine, WarmupSteps


def rates(schedule: object, steps: list[int]) -> list[float]:
    return [float(schedule(keras.ops.convert_to_tensor(step))) for step in steps]


def test_cosine_by_hand() -> None:
    schedule = WarmupCosine(2.0, num_steps=110, warmup_steps=10, start=0.5, end=0.1)
    # Half way up: 2 * (0.5 + 0.5 * 0.5); half way down: 2 * (0.1 + 0.9 / 2).
    expected = [1.0, 1.5, 2.0, 1.1, 0.2, 0.2]
    np.testing.assert_allclose(
        rates(schedule, [0, 5, 10, 60, 110, 1000]), expected, rtol=1e-5
    )


def test_steps_by_hand() -> None:
    schedule = WarmupSteps(1.0, milestones=[20, 30], warmup_steps=10, start=0.0)
    expected = [0.0, 0.3, 1.0, 1.0, 0.1, 0.1, 0.01]
    np.testing.assert_allclose(
        rates(schedule, [0, 3, 10, 19, 20, 29, 30]), expected, rtol=1e-5
    )


def test_without_warmup_the_first_step_has_the_peak() -> None:
    assert rates(WarmupCosine(0.5, 10), [0]) == [0.5]
    assert rates(WarmupSteps(0.5), [0, 10**6]) == [0.5, 0.5]


@pytest.mark.parametrize(
    "schedule",
    [WarmupCosine(0.3, 50, 7, 0.2, 0.05), WarmupSteps(0.3, [9, 11], 7, 0.2, 0.5)],
    ids=lambda schedule: type(schedule).__name__,
)
def test_config_round_trip_through_an_optimizer(schedule: object) -> None:
    optimizer = keras.optimizers.SGD(schedule)
    config = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(config)._learning_rate
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    assert rates(again, [0, 3, 10, 40]) == rates(schedule, [0, 3, 10, 40])


def test_a_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warm-up of 100 steps must end before.* 50"):
        WarmupCosine(0.1, num_steps=50, warmup_steps=100)
    with pytest.raises(ValueError, match=r"warm-up of 100 steps must end before.* 60"):
        WarmupSteps(0.1, [90, 60], warmup_steps=100)
    with pytest.raises(ValueError, match=r"peak must be above 0\. Received: peak=0"):
        WarmupCosine(0.0, 10)
