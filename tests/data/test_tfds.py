"""Data sets of tensorflow-datasets: an imitation, and the package where it is."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kvision.data import tfds

OPTIONS: dict[str, Any] = {"image_size": (16, 16), "batch_size": 4}


@pytest.mark.parametrize("missing", ["tensorflow_datasets", "array_record"])
def test_one_line_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in ("tensorflow_datasets", "array_record"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'kvision\[tfds\]'$") as caught:
        tfds("mnist", "train", **OPTIONS)
    assert "\n" not in str(caught.value)


class Records(list):
    """What `tfds.data_source` returns."""

    split = "train"
    dataset_info = SimpleNamespace(
        features={"image": None, "label": SimpleNamespace(names=["a", "b"])}
    )


@pytest.fixture
def _imitation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four grey images, image i of the value i and of the class i % 2."""

    def data_source(name: str, **arguments: Any) -> Records:
        assert (name, arguments["split"]) == ("mnist", "train")
        return Records(
            {"image": np.full((16, 16, 1), i, np.uint8), "label": i % 2}
            for i in range(4)
        )

    decode = SimpleNamespace(SkipDecoding=object)
    module = SimpleNamespace(data_source=data_source, decode=decode)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    monkeypatch.setitem(sys.modules, "array_record", SimpleNamespace())


@pytest.mark.usefixtures("_imitation")
def test_an_imitation() -> None:
    ((images, labels),) = tfds("mnist", "train", **OPTIONS)
    expected = np.arange(4)[:, None].repeat(3, 1)
    np.testing.assert_array_equal(images[:, 0, 0], expected)
    np.testing.assert_array_equal(labels, [0, 1, 0, 1])


@pytest.mark.usefixtures("_imitation")
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lable", r"no feature 'lable', it has \['image', 'label'\]"),
        ("image", "feature 'image' is no class.*Name one by label_key="),
    ],
)
def test_features_that_do_not_serve(key: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tfds("mnist", "train", label_key=key, **OPTIONS)


@pytest.mark.filterwarnings("default")  # its own
def test_the_package(tmp_path: Path) -> None:
    """A data set made by the package itself, on this machine."""
    pytest.importorskip("array_record")
    library = pytest.importorskip("tensorflow_datasets")

    class Greys(library.core.GeneratorBasedBuilder):
        VERSION = library.core.Version("1.0.0")

        def _info(self) -> Any:
            features = {
                "image": library.features.Image(shape=(None, None, 3)),
                "label": library.features.ClassLabel(names=["a", "b", "c"]),
            }
            features = library.features.FeaturesDict(features)
            return library.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager: Any) -> Any:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            for i in range(9):
                image = np.full((20 + i, 24, 3), 10 * i, np.uint8)
                yield i, {"image": image, "label": i % 3}

    Greys(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    data = tfds("greys", "train", data_dir=tmp_path, download=False, **OPTIONS)
    assert (data.class_names, data.class_counts) == (["a", "b", "c"], [3, 3, 3])
    content = [(np.asarray(x), np.asarray(y)) for x, y in data]
    images, labels = (np.concatenate(part) for part in zip(*content, strict=True))
    assert images.shape == (9, 16, 16, 3)
    values = images[:, 0, 0, 0] // 10
    np.testing.assert_array_equal(np.sort(values), np.arange(9))
    np.testing.assert_array_equal(labels, values % 3)
    part = tfds("greys", "train[:60%]", data_dir=tmp_path, download=False, **OPTIONS)
    assert part.num_images == 5
