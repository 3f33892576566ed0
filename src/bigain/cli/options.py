"""Options that several commands share, and what becomes of them. Nothing here imports PyTorch before it is needed."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from bigain.diffusion import Denoiser

P = ParamSpec("P")
R = TypeVar("R")

show_tracebacks: ContextVar[bool] = ContextVar("show_tracebacks", default=False)

MODEL = "Model"
DATA = "Data"
MEASURED = "What to measure"
CLASSIFIER = "Diffusion classifier"
SAMPLING = "Sampling"

Model = Annotated[
    str,
    typer.Option(
        help="glyphs-dit, glyphs-dit-64 or glyphs-sd (embedded), a folder, or a Hub id such as owner/name.",
        rich_help_panel=MODEL,
    ),
]
Variant = Annotated[
    str | None, typer.Option(help="Variant of the weights' files, such as fp16.", rich_help_panel=MODEL)
]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.", rich_help_panel=MODEL)]
Device = Annotated[
    str | None,
    typer.Option(help="As PyTorch names it; cuda where there is one, else cpu.", rich_help_panel=MODEL),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads; PyTorch's choice if left out.", rich_help_panel=MODEL)
]
BatchSize = Annotated[
    int, typer.Option(min=1, help="Rows of a forward. Results do not depend on it, to rounding.", rich_help_panel=MODEL)
]
Data = Annotated[
    str,
    typer.Option(
        help="glyphs or glyphs-scenes (embedded), imagenet:PATH, imagenet100:PATH, pets:PATH, coco:PATH, folder:PATH, "
        "csv:PATH, hub:ID, or a path.",
        rich_help_panel=DATA,
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--methods",
        "-m",
        help="Presets or specs, with commas or spaces between; may be given several times. See bigain methods.",
        rich_help_panel=MEASURED,
    ),
]
Split = Annotated[str | None, typer.Option(help="Of the data; their own default if left out.", rich_help_panel=DATA)]
UnseenSplit = Annotated[
    str | None,
    typer.Option(
        help="Of the data; validation for embedded data if left out, so that the test split stays unseen.",
        rich_help_panel=DATA,
    ),
]
Classes = Annotated[
    Path | None, typer.Option(help="File of the classes that take part (ImageNet-100).", rich_help_panel=DATA)
]
Features = Annotated[
    str,
    typer.Option(
        help="Network behind FID and KID: recogniser (embedded data only), inception (needs torch-fidelity), "
        "none, or auto: recogniser for embedded data, else none.",
        rich_help_panel=SAMPLING,
    ),
]
Seed = Annotated[int, typer.Option(help="Of all noise.")]
ToKeep = Annotated[str, typer.Option(help="Classes kept after each stage, such as '5 1'.", rich_help_panel=CLASSIFIER)]
NSamples = Annotated[
    str, typer.Option(help="Timesteps evaluated up to each stage, such as '5 20'.", rich_help_panel=CLASSIFIER)
]
Loss = Annotated[str, typer.Option(help="l2, l1 or huber.", rich_help_panel=CLASSIFIER)]
Steps = Annotated[int, typer.Option(min=1, help="Of the sampler.", rich_help_panel=SAMPLING)]
Guidance = Annotated[
    float | None,
    typer.Option(
        min=1.0,
        help="Scale of classifier-free guidance; 1 is none. If left out 4 for class labels (DiT) and 7.5 for prompts "
        "(Stable Diffusion), as in the papers.",
        rich_help_panel=SAMPLING,
    ),
]
Sampler = Annotated[
    str | None, typer.Option(help="ddim or euler; the model's own scheduler if left out.", rich_help_panel=SAMPLING)
]
PromptsCsv = Annotated[
    Path | None, typer.Option(help="A csv file with the columns prompt, classname, classidx.", rich_help_panel=DATA)
]
BadImages = Annotated[
    str, typer.Option(help="What to do with an image that cannot be read: raise or skip.", rich_help_panel=DATA)
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="quality, balanced or fast, where they were measured for the model; or a preset file, such as bigain "
        "allocate and bigain tune write."
    ),
]
SinglePreset = Annotated[str | None, typer.Option(help="A preset file (.json) that holds one method.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


def reported(command: Callable[P, R]) -> Callable[P, R]:
    """Shows an error that a user can mend as one line, with exit status 1; ``bigain --traceback`` shows all of it."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (ValueError, OSError, ImportError) as error:
            if show_tracebacks.get():
                raise
            typer.secho(f"Error: {error}", fg="red", err=True)
            raise typer.Exit(1) from error

    return wrapped


def folder(out: Path | None, command: str, model: str) -> Path:
    """``out``, or where it is left out runs/COMMAND/MODEL: the model's folder, or the last part of its name."""
    if out is not None:
        return out
    path = Path(model)
    return Path("runs", command, path.resolve().name if path.exists() else path.name)


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """Reads '5 1' or '5,1'.

    Raises:
        ValueError: it has something else than whole numbers.
    """
    words = re.split(r"[\s,]+", text.strip())
    if not all(word.isascii() and word.isdigit() for word in words):
        raise ValueError(f"{option} must be whole numbers with spaces between, such as '5 20', not {text!r}")
    return tuple(int(word) for word in words)


def method_or_preset(method: str | None, preset: str | None, model: str, default: str) -> str:
    """The text that --method gives, or a preset's instead.

    Raises:
        ValueError: both are given.
    """
    if preset is None:
        return default if method is None else method
    if method is not None:
        raise ValueError(f"give either --method {method} or --preset {preset}, not both")
    return spec_of(preset, model)


def spec_of(preset: str, model: str) -> str:
    """The text of a preset, for `bigain.backbones.resolve`: a file, or MODEL/NAME for a name.

    Raises:
        ValueError: no such preset was measured for the model, or the file is none.
        FileNotFoundError: there is no such file.
    """
    from bigain.zoo import presets

    if not preset.endswith(".json"):
        if preset not in {name.partition("/")[2] for name in presets.names()}:
            raise ValueError(f"--preset must be quality, balanced, fast or a file that ends in .json, not {preset!r}")
        return presets.of_model(model, preset).source
    presets.read(preset)  # raises for what is none
    return preset


def share(option: str, text: str) -> tuple[int, int]:
    """Reads '2/4', the second of four shares, as (1, 4).

    Raises:
        ValueError: it is no such thing.
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text.strip())
    number, count = (int(part) for part in found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"{option} must be I/N with I from 1 to N, such as 2/4, not {text!r}")
    return number - 1, count


def open_denoiser(
    model: str, dtype: str, device: str | None, variant: str | None, threads: int | None, quiet: bool = False
) -> Denoiser:
    """Opens a model as the options say.

    Raises:
        ValueError: an unknown dtype, and as `open_model`.
    """
    import torch

    from bigain.diffusion import open_model
    from bigain.run.settings import DTYPES

    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    use_threads(threads)
    return open_model(
        model, dtype=getattr(torch, dtype), device=device or default_device(), variant=variant, quiet=quiet
    )


def default_device() -> str:
    """Cuda where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def use_threads(threads: int | None) -> None:
    """Sets how many CPU threads PyTorch takes, where that was asked for."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def class_names(denoiser: Any, model: str) -> tuple[str, ...]:
    """What the labels of a class-conditional model are called: letters for an embedded one, else their numbers."""
    from bigain.data.glyphs import CLASSES
    from bigain.diffusion import EMBEDDED

    return CLASSES if model in EMBEDDED else tuple(str(label) for label in range(denoiser.classes))


def label_of(text: str, names: tuple[str, ...]) -> int:
    """The label that a name or a number stands for.

    Raises:
        ValueError: lists the names, or the range.
    """
    if text in names:
        return names.index(text)
    if text.isascii() and text.isdigit() and int(text) < len(names):
        return int(text)
    known = ", ".join(names) if len(names) <= 20 and not names[0].isdigit() else "numbers"
    raise ValueError(f"unknown class {text!r}: give one of {known}, or a label in [0, {len(names)})")


@contextmanager
def counting(quiet: bool, unit: str, description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, and what tells it how many are done and how many there are."""
    from tqdm.auto import tqdm

    with tqdm(disable=quiet, unit=unit, desc=description) as bar:

        def counted(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield counted


def console() -> Console:
    """A console as wide as the terminal; wide enough for every table where there is none."""
    from rich.console import Console

    plain = Console()
    return plain if plain.is_terminal else Console(width=170)
