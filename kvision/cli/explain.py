"""`kvision explain`: what a Vision Transformer looked at in a photo."""

from pathlib import Path
from typing import Any

from kvision.cli.arguments import load_model
from kvision.export.classifier import is_classifier
from kvision.predict.explanations import explain

__all__ = ["run"]


def run(
    model: Path, image: Path, block: str, head: int | None, output: Path
) -> dict[str, Any]:
    """Classify a photo and write pictures of what the model attended to.

    Args:
        model: a `.keras` file or a run folder.
        image: the photo.
        block: number or name of the block whose attention is drawn.
        head: number of one of its heads; None for the mean of all.
        output: folder to write to.

    Returns:
        The classes, the block and the files written.

    Raises:
        ValueError: if the model is no classifier, or has no such block or head.
    """
    loaded = load_model(model)
    if not is_classifier(loaded):
        raise ValueError(
            f"{model} holds a detector; `kvision explain` looks into classifiers with "
            "transformer blocks, such as `kvision train classify` makes"
        )
    number = int(block) if block.lstrip("-").isdecimal() else block
    found = explain(loaded, image, number, head)
    files = found.plot(output, image.stem)
    for name, score in found.classification.top:
        print(f"{100 * score:6.1f} %  {name}")
    for name, cells in found.kept.items():
        print(f"{name}: {cells.sum()} of {cells.size} patches kept")
    heads = "mean of all heads" if head is None else f"head {head}"
    print(f"attention of {found.block}, {heads}; {len(files)} pictures: {output}/")
    return {
        **found.classification.to_dict(),
        "block": found.block,
        "head": head,
        "kept": {name: int(cells.sum()) for name, cells in found.kept.items()},
        "files": files,
    }
