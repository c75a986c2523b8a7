"""Recipes for named data; each states its command and where its result is."""

from kvision.train.detect_recipe import DetectRecipe

__all__ = ["DetectRecipe", "nuclei"]


def nuclei(data: str, weights: str) -> DetectRecipe:
    """Return the recipe for the nuclei of the Data Science Bowl 2018.

    Command, with the data in `nuclei/` (433 training and 105 validation images):
    `kvision train detect nuclei/ --recipe nuclei.yaml`, the file being this recipe's
    `to_yaml`. It is made for ten minutes on two CPU cores; result, time and
    machine: benchmarks/RESULTS.md.

    Args:
        data: folder with train.json, val.json and the images.
        weights: path of ImageNet weights of MobileNetV2, or "imagenet".

    Returns:
        The recipe.
    """
    return DetectRecipe(
        data=data,
        backbone="mobilenet_v2",
        weights=weights,
        image_size=(256, 256),
        dtype="auto",
        deterministic=False,
        batch_size=4,
        epochs=4,
        learning_rate=0.02,
        augment=["HorizontalFlip", "VerticalFlip", "Rotate90"],
        cache=True,
        evaluate_every=4,
        validation_loss=False,
        arguments={
            "anchor_sizes": [8, 16, 32, 64, 128],
            "max_detections": 200,
            # Half of the usual numbers: images of 256 px hold few places, and the time
            # of a step is that of its regions.
            "rpn_train_post_nms_top_k": 1000,
            "box_num_samples": 256,
        },
    )
