import keras
import pytest

import kvision
from kvision.models.costs import Costs, costs_of
from kvision.models.published import PUBLISHED, Published


def test_by_hand() -> None:
    def build() -> keras.Model:
        images = keras.Input((8, 6, 3))
        x = keras.layers.Conv2D(4, 3, 2, padding="same")(images)  # 4 x 3 x 4, 27 each
        x = keras.layers.DepthwiseConv2D(3, padding="same")(x)  # 4 x 3 x 4, 9 each
        x = keras.layers.Flatten()(x)
        return keras.Model(images, keras.layers.Dense(5)(x))  # 5, 48 each

    parameters = 4 * 27 + 4 + 4 * 9 + 4 + 5 * 48 + 5
    assert costs_of(build) == Costs(parameters, 48 * 27 + 48 * 9 + 5 * 48)


def test_takes_no_memory_for_weights() -> None:
    kept = []

    def build() -> keras.Model:
        images = keras.Input((8,))
        # 40 TB of weights.
        model = keras.Model(images, keras.layers.Dense(10**12)(images))
        kept.append(model)
        return model

    assert costs_of(build).multiply_adds == 8 * 10**12
    with keras.StatelessScope():  # its end gives values to variables that wait
        pass


def test_detectors_depend_on_the_image() -> None:
    with pytest.raises(ValueError, match="depends on the image"):
        costs_of(
            lambda: kvision.models.faster_rcnn(
                "mobilenet_v2", class_names=["a"], image_size=(64, 64)
            )
        )


def _name(one: Published) -> str:
    return " ".join([one.builder, one.variant, *one.arguments, str(one.image_size[0])])


_LARGE = ("L/16", "L/32", "H/14", "g/14", "R50+L/32", "L")


@pytest.mark.parametrize(
    "published",
    [
        pytest.param(
            one,
            marks=pytest.mark.slow if one.variant in _LARGE else (),
            id=_name(one),
        )
        for one in PUBLISHED
    ],
)
def test_published(published: Published) -> None:
    build = getattr(kvision.models, published.builder)
    counted = costs_of(
        lambda: build(
            published.variant,
            image_size=published.image_size,
            **published.arguments,
        )
    )
    assert counted.parameters == published.costs.parameters
    # The same products; timm's may be fused in another way.
    assert counted.multiply_adds == pytest.approx(published.costs.multiply_adds, 0.01)
