"""Recipes for named data; each states its command and where its result is."""

from kvision.train.classify_recipe import ClassifyRecipe
from kvision.train.detect_recipe import DetectRecipe

__all__ = [
    "ClassifyRecipe",
    "DetectRecipe",
    "fine_tuning",
    "from_scratch",
    "nuclei",
    "pneumoniamnist",
]


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


def from_scratch(
    data: str, model: str = "deit", variant: str = "S/16"
) -> ClassifyRecipe:
    """Return the recipe of DeiT: a transformer without other weights to begin with.

    Command: `kvision train classify DATA --recipe from_scratch.yaml`, the file being
    this recipe's `to_yaml`. Data: a million photos, such as ImageNet-1k in `train/` and
    `val/`; with less, begin with weights. RandAugment, random erasing, MixUp, CutMix,
    repeated augmentation, label smoothing, drop path and an average of the weights, as
    Touvron et al. 2021, Table 9.

    Result: not measured on so many photos. With too few it learns little: on
    PneumoniaMNIST (`--variant Lite-2/4 --image-size 28 --batch-size 64 num_channels=1
    accumulate=1 epochs=50 max_minutes=3 warmup_steps=100 ema=0.99 repeats=1`) test
    accuracy 0.735 and AUC 0.871 after three minutes on two busy CPU cores.

    Args:
        data: folder of class folders.
        model: builder in `kvision.models`.
        variant: of the builder.

    Returns:
        The recipe.
    """
    return ClassifyRecipe(
        data=data,
        model=model,
        variant=variant,
        dtype="auto",
        deterministic=False,
        batch_size=128,
        accumulate=8,
        epochs=300,
        # 0.0005 at 512 images, in proportion to the 1024 of a change here.
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup_steps=6255,  # five epochs of ImageNet-1k
        drop_path=0.1,
        ema=0.99996,
        augment="deit",
        label_smoothing=0.1,
        repeats=3,
    )


def fine_tuning(
    data: str, weights: str, model: str = "vit", variant: str = "B/16"
) -> ClassifyRecipe:
    """Return a recipe that begins with weights of the same builder.

    Command: `kvision train classify DATA --recipe fine_tuning.yaml --weights PATH`, the
    file being this recipe's `to_yaml`. Data: photos in class folders, some hundreds or
    more. The head begins anew where the classes differ; early layers learn less than
    late ones (0.75 a layer), weight decay acts on kernels only.

    Result: from PneumoniaMNIST at 28 px to 56 px (the recipe `pneumoniamnist`, then
    `--variant Lite-2/4 --image-size 56 num_channels=1 epochs=8`) test AUC goes from
    0.954 to 0.957 and accuracy from 0.880 to 0.840, in two minutes on two busy CPU
    cores. (It mirrors images, which chests are not.)

    Args:
        data: folder of class folders, CSV or `.npz` file.
        weights: `.keras`, `.weights.h5` or `.safetensors` file of the builder.
        model: builder in `kvision.models`.
        variant: of the builder.

    Returns:
        The recipe.
    """
    return ClassifyRecipe(
        data=data,
        model=model,
        variant=variant,
        weights=weights,
        dtype="auto",
        deterministic=False,
        batch_size=64,
        epochs=20,
        layer_decay=0.75,
        weight_decay=0.05,
        clipnorm=1.0,
        drop_path=0.1,
        augment="light",
        label_smoothing=0.1,
    )


def pneumoniamnist(data: str) -> ClassifyRecipe:
    """Return the recipe of a small transformer for PneumoniaMNIST.

    Command: `kvision train classify pneumoniamnist.npz --recipe pneumoniamnist.yaml`,
    the file being this recipe's `to_yaml`. Data: 28 x 28 chest X-rays, 2428 to train
    on and 270 to validate on. Made for three minutes on two CPU cores.

    Result: test accuracy 0.880 (95 % interval 0.850 to 0.908) and AUC 0.954 after 43
    epochs on two busy cores; three seeds of this model and of others with more of the
    machine: benchmarks/RESULTS.md.

    Args:
        data: the `.npz` file.

    Returns:
        The recipe.
    """
    return ClassifyRecipe(
        data=data,
        model="vit",
        variant="Lite-2/4",
        image_size=(28, 28),
        num_channels=1,
        deterministic=False,
        batch_size=64,
        epochs=50,
        max_minutes=3,
        learning_rate=1e-3,
        # No mirroring: the heart is on the left.
        augment=[{"RandomPaddedCrop": {"padding": 2}}],
        label_smoothing=0.1,
    )
