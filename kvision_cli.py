"""The `kvision` command: reads and checks arguments, then imports what they need.

Nothing here imports TensorFlow, so that help and wrong arguments are answered at once.
What a command does lives in ``kvision/cli/<command>.py`` in a function
``run(**options) -> dict``: it prints for people and returns what ``--json`` prints.
"""

import contextlib
import functools
import importlib
import importlib.util
import json
import math
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click

# Exit codes a shell gives to a process ended by SIGINT and SIGTERM.
INTERRUPTED, TERMINATED = 130, 143

# What kvision raises on purpose: the message is for the user, the traceback is not.
EXPECTED_ERRORS = (ValueError, OSError, ImportError)


class InOrder(click.Group):
    """A group that lists its commands in the order of a user's work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names as they were defined."""
        return list(self.commands)


class ImageSize(click.ParamType):
    """``256`` or ``256x320`` (height x width) as ``(256, 320)``."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse a size, or say what one looks like."""
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split("x")
        if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
            self.fail(f"expected 256 or 256x320 (height x width), got {value!r}")
        return int(parts[0]), int(parts[-1])


@contextlib.contextmanager
def held_stderr() -> Iterator[None]:
    """Hold back what C++ code writes to stderr; let it out only if the block fails.

    TensorFlow reports its CPU features, CUDA search and oneDNN at every start, before
    it reads TF_CPP_MIN_LOG_LEVEL.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def start_tensorflow() -> None:
    """Import kvision (and so TensorFlow) and let it find its devices, quietly."""
    # Its C++ code reports non-errors as errors (no GPU, no AVX-512); real ones are
    # raised in Python.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with held_stderr():
        importlib.import_module("kvision")
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow is not None:
            tensorflow.config.list_physical_devices()


def load_doctor() -> ModuleType:
    """Load the doctor by its path: it must work where `import kvision` does not."""
    package = importlib.util.find_spec("kvision")
    if package is None or not package.submodule_search_locations:
        raise ImportError("kvision is not installed beside kvision_cli")
    path = Path(package.submodule_search_locations[0]) / "cli" / "doctor.py"
    spec = importlib.util.spec_from_file_location("kvision_doctor", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(command: str) -> ModuleType:
    """Import the module of a command."""
    if command == "doctor":
        return load_doctor()
    start_tensorflow()
    return importlib.import_module(f"kvision.cli.{command}")


def plain(value: Any) -> Any:
    """Return ``value`` as strict JSON knows it: no NumPy, no paths, NaN as null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, os.PathLike) else value


# An error of ours that was raised within tf.data: TensorFlow wraps it in one of its
# own, with the name, the message and the traceback in its text.
INSIDE_TENSORFLOW = re.compile(
    r"\b(?:DataError|ValueError|OSError|FileNotFoundError): (.+?)\nTraceback ",
    re.DOTALL,
)


def explain(error: Exception) -> str | None:
    """Return what to tell the user, or None if the error is a defect of ours.

    TensorFlow's errors are known by name: it is not imported here.
    """
    text = str(error).strip() or type(error).__name__
    if isinstance(error, MemoryError) or "ResourceExhausted" in type(error).__name__:
        first = text.splitlines()[0]
        return f"out of memory, try a smaller batch or image size ({first})"
    if isinstance(error, EXPECTED_ERRORS):
        return text
    if type(error).__module__.startswith("tensorflow."):
        inner = INSIDE_TENSORFLOW.search(text)
        return inner.group(1) if inner else None
    return None


def run(command: str, *, as_json: bool, show_traceback: bool, **options: Any) -> None:
    """Run a command and end the process with its exit code.

    The code is 1 where the command raised, or where its result says ``"ok": False``.
    """
    try:
        result = {"ok": True, **load(command).run(**options)}
    except Exception as error:
        message = explain(error)
        if show_traceback or message is None:
            traceback.print_exception(error)
        message = message or f"{type(error).__name__}: {error}"
        click.secho(f"error: {message}", fg="red", err=True)
        result = {"ok": False, "error": message}
    if as_json:
        click.echo(json.dumps(plain(result), allow_nan=False))
    click.get_current_context().exit(0 if result["ok"] else 1)


def common(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every command has."""
    add_json = click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print one JSON object as the last line.",
    )
    add_traceback = click.option(
        "--traceback",
        "show_traceback",
        is_flag=True,
        help="Show where in the code an error was raised.",
    )
    return add_json(add_traceback(function))


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
EITHER = click.Path(exists=True, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)

model_argument = click.argument("model", type=EITHER)
data_argument = click.argument("data", type=EITHER)
images_option = click.option(
    "--images", type=FOLDER, help="Image folder, where DATA is a json file elsewhere."
)
score_option = click.option(
    "--score-threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Leave out detections that score less.",
)


def batch_option(default: int | None) -> Callable[..., Any]:
    """Return ``--batch-size`` with the default of a command."""
    return click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=default,
        show_default=default is not None,
        help="Images a step.",
    )


def training_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that training has, whatever the task."""
    options = [
        batch_option(None),
        click.option("--epochs", type=click.IntRange(min=1)),
        click.option(
            "--learning-rate",
            type=click.FloatRange(min=0, min_open=True),
            metavar="RATE",
        ),
        click.option("--seed", type=click.IntRange(min=0)),
        click.option("--name", help="Name of the run's folder."),
        click.option(
            "--runs",
            type=NEW_FOLDER,
            default=Path("runs"),
            show_default=True,
            help="Where run folders are made.",
        ),
        click.option(
            "--resume", type=FOLDER, metavar="RUN", help="Go on with this run."
        ),
    ]
    return functools.reduce(
        lambda made, add: add(made), options[::-1], common(function)
    )


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kvision", prog_name="kvision")
def cli() -> None:
    """Classify images and find objects with Keras models: train, score, draw, export.

    Start with `kvision demo`, or with `kvision check DATA` on your own photos.
    """


@cli.command()
@click.option(
    "--output",
    type=NEW_FOLDER,
    default=Path("demo"),
    show_default=True,
    help="Folder for pictures and exported models.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@common
def demo(**options: Any) -> None:
    """Train, score, draw and export a Mask R-CNN on shapes."""
    run("demo", **options)


@cli.command()
@data_argument
@images_option
@common
def check(**options: Any) -> None:
    """Find the faults of a COCO data set.

    DATA is a folder with COCO json files and images, or one json file. No file is
    changed. The exit code is 1 when there are errors.
    """
    run("check", **options)


def split_data(arguments: tuple[str, ...]) -> tuple[Path | None, tuple[str, ...]]:
    """Part DATA, which comes first if it comes, from texts of KEY=VALUE."""
    data = None
    if arguments and ("=" not in arguments[0] or Path(arguments[0]).exists()):
        data = EITHER.convert(arguments[0], None, None)
        arguments = arguments[1:]
    for text in arguments:
        if "=" not in text:
            raise click.UsageError(f"Expected KEY=VALUE after DATA, got {text!r}.")
    return data, arguments


@cli.group(cls=InOrder)
def train() -> None:
    """Train a model on your own data."""


def train_model(
    command: str, arguments: tuple[str, ...], options: dict[str, Any]
) -> None:
    """Check what training commands are given, and run one."""
    data, settings = split_data(arguments)
    if options["resume"] is not None and data is not None:
        raise click.UsageError("--resume goes on with the data of its run: no DATA.")
    if data is None and options["resume"] is None and options["recipe"] is None:
        raise click.UsageError("Missing argument 'DATA' (or --resume RUN).")
    run(command, data=data, settings=settings, **options)


@train.command("detect")
@click.argument("arguments", metavar="DATA [KEY=VALUE]...", nargs=-1)
@images_option
@click.option("--recipe", type=FILE, help="YAML file of settings.")
@click.option("--model", type=click.Choice(["mask_rcnn", "faster_rcnn"]))
@click.option("--backbone", metavar="NAME", help="mobilenet_v2, resnet50, ...")
@click.option("--weights", metavar="imagenet|none|PATH", help="Start of the backbone.")
@click.option("--image-size", type=ImageSize(), help="256 or 256x320 (height x width).")
@training_options
def train_detect(arguments: tuple[str, ...], **options: Any) -> None:
    """Train a Faster or Mask R-CNN on a COCO data set.

    DATA is a folder with COCO json files and images, or one json file. Every setting
    of a recipe, and every argument of the model, can be given as KEY=VALUE; the
    options are the most used of them. With --resume there is no DATA.
    """
    train_model("train_detect", arguments, options)


@train.command("classify")
@click.argument("arguments", metavar="DATA [KEY=VALUE]...", nargs=-1)
@images_option
@click.option("--recipe", type=FILE, help="YAML file of settings.")
@click.option("--model", metavar="NAME", help="vit, deit, twins_svt, ...")
@click.option("--variant", metavar="NAME", help="Such as S/16.")
@click.option("--weights", metavar="none|PATH", help="Model or weights to begin with.")
@click.option("--image-size", type=ImageSize(), help="224 or 224x320 (height x width).")
@training_options
def train_classify(arguments: tuple[str, ...], **options: Any) -> None:
    """Train a classifier on folders of images, a table of files, or an .npz file.

    DATA is a folder with a folder for each class (or with train/ and val/ of such), a
    CSV table of files and classes, or an .npz file of arrays. Every setting of a
    recipe, and every argument of the model, can be given as KEY=VALUE; the options are
    the most used of them. With --resume there is no DATA.
    """
    train_model("train_classify", arguments, options)


@cli.command("eval")
@model_argument
@data_argument
@images_option
@click.option(
    "--set", "set_name", metavar="NAME", help="Which set of a folder, if not val."
)
@batch_option(8)
@click.option(
    "--max-detections",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Detections an image that count.",
)
@click.option(
    "--score-threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Least score in the confusion matrix.",
)
@click.option("--output", type=NEW_FOLDER, help="Folder for scores and pictures.")
@common
def evaluate(**options: Any) -> None:
    """Score a model: a detector as COCO does, a classifier by accuracy and AUC.

    DATA is COCO's for a detector; for a classifier a folder of classes, a CSV table or
    an .npz file. Prints the figures and a table of classes; with --output it also
    writes curves and a confusion matrix.
    """
    run("evaluate", **options)


@cli.command()
@model_argument
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True)
@score_option
@batch_option(8)
@click.option(
    "--output",
    type=NEW_FOLDER,
    default=Path("predictions"),
    show_default=True,
    help="Folder for the pictures and the json file.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Classes that a classifier names.",
)
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="What to do about a file that cannot be read.",
)
@common
def predict(**options: Any) -> None:
    """Find objects in images, or say what they show, and draw it.

    IMAGES are files, folders, quoted patterns ("photos/*.jpg") or, for a detector,
    videos.
    """
    run("predict", **options)


@cli.command()
@model_argument
@click.option(
    "--format",
    "formats",
    type=click.Choice(["saved_model", "tflite", "onnx"]),
    multiple=True,
    default=["saved_model", "tflite"],
    show_default=True,
    help="May be given more than once.",
)
@click.option(
    "--quantize",
    type=click.Choice(["float32", "float16", "dynamic", "int8"]),
    default="float32",
    show_default=True,
    help="Numbers of the TFLite file.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="A SavedModel that is fastest on x86.  [default: one that runs anywhere]",
)
@click.option(
    "--data",
    type=EITHER,
    help="Data set to compare on, as for eval; its training images calibrate int8.",
)
@images_option
@click.option("--name", help="Name of the exported model.  [default: that of MODEL]")
@click.option(
    "--output",
    type=NEW_FOLDER,
    default=Path("saved_models"),
    show_default=True,
    help="Folder of all exported models.",
)
@common
def export(**options: Any) -> None:
    """Export a model to SavedModel, TFLite and, a classifier, ONNX.

    Writes NAME/VERSION/ for TF Serving, NAME/NAME.tflite and NAME/NAME.onnx. Each
    is then run beside the model and the difference is printed; more than the tolerance
    is an error.
    """
    if options["quantize"] == "int8" and options["data"] is None:
        raise click.UsageError("--quantize int8 needs --data DATA for calibration.")
    run("export", **options)


@cli.command()
@click.argument("checkpoint", type=FILE)
@click.argument("settings", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "--model",
    required=True,
    metavar="NAME",
    help="vit, deit, mask_rcnn, ..., or a preset of `kvision models`.",
)
@click.option("--variant", metavar="NAME", help="Such as B/16.")
@click.option("--image-size", type=ImageSize(), help="224 or 224x320 (height x width).")
@click.option(
    "--source",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Whose checkpoint it is: timm, hugging_face, google, ...",
)
@click.option(
    "--part",
    metavar="NAME",
    help="Of a file with several dicts of tensors the one to take, such as model_ema.",
)
@click.option(
    "--unused",
    multiple=True,
    metavar="NAME",
    help="Beginning of tensors to leave out. May be given more than once.",
)
@click.option(
    "--adapt-channels",
    is_flag=True,
    help="Bring the first convolution to images of other channels.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="NAME.keras for the model, NAME.safetensors for its weights alone.",
)
@common
def convert(**options: Any) -> None:
    """Bring weights of another project into a model.

    CHECKPOINT is safetensors, .npz, .pth, .pkl or .h5. Arguments of the model can be
    given as KEY=VALUE (num_classes=10). A table says what became of the tensors;
    anything that does not fit is an error.
    """
    run("convert", **options)


@cli.command()
@click.argument("model", required=False)
@click.argument("variant", required=False)
@click.option("--image-size", type=ImageSize(), help="256 or 256x320 (height x width).")
@common
def models(**options: Any) -> None:
    """List the classifiers, their parameters and multiply-adds, and the presets.

    MODEL is a function (vit): its models and presets; with a VARIANT (vit S/16) what
    that one costs at any image size. Or a preset: where its weights come from, their
    licence, how images are prepared, published figures.
    """
    run("models", **options)


@cli.command("explain")
@model_argument
@click.argument("image", type=FILE)
@click.option(
    "--block",
    default="-1",
    show_default=True,
    metavar="NUMBER|NAME",
    help="Block whose attention is drawn; -1 is the last.",
)
@click.option("--head", type=int, help="One of its heads.  [default: mean of all]")
@click.option(
    "--output",
    type=NEW_FOLDER,
    default=Path("explanations"),
    show_default=True,
    help="Folder for the pictures.",
)
@common
def explain_image(**options: Any) -> None:
    """Draw what a Vision Transformer looks at in an image.

    Attention of a block, rollout through all blocks, and what the model has more:
    codes of positions, kept tokens, patches of two sizes.
    """
    run("explain", **options)


@cli.command()
@common
def doctor(**options: Any) -> None:
    """Print versions, devices and extras, and what to mend."""
    run("doctor", **options)


def end_on_sigterm() -> None:
    """Make SIGTERM unwind the stack (so that files are closed) and exit with 143.

    As process 1 of a container Python would ignore the signal otherwise.
    """

    def leave(*_: object) -> None:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, leave)


def main() -> None:
    """Run the command line; the entry point of the `kvision` script."""
    end_on_sigterm()
    try:
        sys.exit(cli(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
