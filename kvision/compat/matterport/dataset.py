"""`Dataset`: the class from which a script derives its own images and masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kvision.data.images import load_image

__all__ = ["Dataset"]

Array = np.ndarray


class Dataset:
    """Images, their classes and their masks, by number.

    Derive a class, fill it with `add_class` and `add_image`, override `load_mask` (and
    `load_image` if the images are no files), and call `prepare`. Class 0 is the
    background.

    Args:
        class_map: not taken; matterport never did.

    Attributes:
        class_info: list of {"source", "id", "name"}, by class.
        image_info: list of {"source", "id", "path", ...}, by image.
        num_classes: with background; made by `prepare`, like all that follow.
        class_ids: (K + 1,) array 0, 1, 2, ...
        class_names: name of each class.
        num_images: number of images.
        sources: names of the sources.
        source_class_ids: {source: its classes}, background among them.
        class_from_source_map: {"source.id": class}.
        image_from_source_map: {"source.id": number of the image}.

    Source: matterport/Mask_RCNN, mrcnn/utils.py.
    """

    def __init__(self, class_map: None = None) -> None:
        _refuse_map(class_map)
        self.class_info: list[dict[str, Any]] = [{"source": "", "id": 0, "name": "BG"}]
        self.image_info: list[dict[str, Any]] = []
        self.source_class_ids: dict[str, list[int]] = {}
        self._image_ids = np.arange(0)

    def add_class(self, source: str, class_id: int, class_name: str) -> None:
        """Add a class; the first one gets number 1.

        Args:
            source: name of the data set, such as "coco".
            class_id: number of the class in it.
            class_name: name of the class.

        Raises:
            ValueError: the source has a dot, or the class has another name already.
        """
        if "." in source:
            raise ValueError(
                f"The name of a source may have no dot. Received: source={source!r}"
            )
        for info in self.class_info:
            if (info["source"], info["id"]) == (source, class_id):
                if info["name"] != class_name:
                    raise ValueError(
                        f"Class {class_id} of {source!r} is {info['name']!r} already. "
                        f"Received: class_name={class_name!r}"
                    )
                return
        self.class_info.append({"source": source, "id": class_id, "name": class_name})

    def add_image(self, source: str, image_id: Any, path: Any, **kwargs: Any) -> None:
        """Add an image.

        Args:
            source: name of the data set.
            image_id: what it is called there.
            path: of its file, or what `load_image` makes of it.
            **kwargs: whatever `load_image` and `load_mask` want to find in
                `image_info`.
        """
        info = {"id": image_id, "source": source, "path": path}
        self.image_info.append(info | kwargs)

    def prepare(self, class_map: None = None) -> None:
        """Number classes and images; call it after the last of them was added.

        Args:
            class_map: not taken.
        """
        _refuse_map(class_map)
        self.num_classes = len(self.class_info)
        self.class_ids = np.arange(self.num_classes)
        self.class_names = [info["name"].split(",")[0] for info in self.class_info]
        self.num_images = len(self.image_info)
        self._image_ids = np.arange(self.num_images)
        self.class_from_source_map = _numbers(self.class_info)
        self.image_from_source_map = _numbers(self.image_info)
        self.sources = list(dict.fromkeys(info["source"] for info in self.class_info))
        self.source_class_ids = {
            source: [
                number
                for number, info in enumerate(self.class_info)
                if number == 0 or info["source"] == source
            ]
            for source in self.sources
        }

    @property
    def image_ids(self) -> Array:
        """Numbers of the images: 0, 1, 2, ..."""
        return self._image_ids

    def map_source_class_id(self, source_class_id: str) -> int:
        """Return the class that a source calls by a number of its own.

        Args:
            source_class_id: such as "coco.12".

        Returns:
            The class.
        """
        return self.class_from_source_map[source_class_id]

    def get_source_class_id(self, class_id: int, source: str) -> int:
        """Return the number that a source gives a class.

        Args:
            class_id: the class.
            source: name of the source.

        Returns:
            Its number there.

        Raises:
            ValueError: the class is of another source.
        """
        info = self.class_info[class_id]
        if info["source"] != source:
            raise ValueError(
                f"Class {class_id} ({info['name']!r}) is of {info['source']!r}. "
                f"Received: source={source!r}"
            )
        return int(info["id"])

    def image_reference(self, image_id: int) -> Any:
        """Say where an image comes from; override it.

        Args:
            image_id: number of the image.

        Returns:
            "".
        """
        return ""

    def source_image_link(self, image_id: int) -> Any:
        """Say where an image can be looked at; override it for addresses.

        Args:
            image_id: number of the image.

        Returns:
            Its path.
        """
        return self.image_info[image_id]["path"]

    def load_image(self, image_id: int) -> Array:
        """Read an image from its file; override it for others.

        Args:
            image_id: number of the image.

        Returns:
            (H, W, 3) uint8 array, RGB, EXIF orientation applied.

        Raises:
            DataError: the file is missing or damaged; a `ValueError`.
        """
        return load_image(self.image_info[image_id]["path"])

    def load_mask(self, image_id: int) -> tuple[Array, Array]:
        """Load the objects of an image; override it.

        Args:
            image_id: number of the image.

        Returns:
            (H, W, N) bool array, a mask for each object, and (N,) int32 array, their
            classes; a crowd has its class negative. Here: no objects.
        """
        return np.empty((0, 0, 0), bool), np.empty(0, np.int32)


def _numbers(infos: Sequence[dict[str, Any]]) -> dict[str, int]:
    return {f"{info['source']}.{info['id']}": i for i, info in enumerate(infos)}


def _refuse_map(class_map: Any) -> None:
    if class_map is not None:
        raise ValueError(
            "class_map is not supported; add the classes under the numbers they shall "
            f"have. Received: class_map={class_map!r}"
        )
