"""What a joint run is to do: groups of settings whose fields carry their own help, checks and defaults.

A command takes groups as they are here, and a run can be read from a file of the same names. Nothing here imports
PyTorch before a model is opened.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from bigain.zoo.presets import text_of

if TYPE_CHECKING:
    from bigain.classify import Stages
    from bigain.data import ImageCollection
    from bigain.diffusion import Denoiser
    from bigain.generate import Sampling

DTYPES = ("float32", "bfloat16", "float16")
EMBEDDED_DATA = ("glyphs", "glyphs-scenes")
FEATURES = ("auto", "recogniser", "inception", "none")
METHODS_HELP = (
    "Methods, with commas or spaces between: a shorthand (lgtm-0.7), a spec (tome:ratio=0.5,cell=4x4), a preset of a "
    "model (glyphs-dit/fast) or a preset file (.json). See bigain methods."
)
REFERENCE_IMAGES = 2000  # the most real images that FID compares with


def setting(
    default: Any, help: str, *, low: float | None = None, choices: tuple[str, ...] = (), short: str | None = None
) -> Any:
    """A field of a group: its default, its help text, and the least value or the values that it may have.

    Args:
        low: the least value; None is any. A field whose default is None may also be left out.
        short: a one-letter flag, such as "-m".
    """
    return field(default=default, metadata={"help": help, "low": low, "choices": choices, "short": short})


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of settings: frozen, and checked when made.

    Raises:
        ValueError: names the field, what is allowed and the value.
    """

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            low, choices = one.metadata.get("low"), one.metadata.get("choices")
            if value is None or isinstance(value, Group):
                continue
            if choices and value not in choices:
                raise ValueError(f"{one.name} must be one of {', '.join(choices)}, not {value!r}")
            if low is not None and not (math.isfinite(value) and value >= low):
                raise ValueError(f"{one.name} must be at least {low:g}, not {value}")


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Group):
    """Which model, and how it runs. Batch size, device and threads change results by rounding alone."""

    model: str = setting(
        "glyphs-dit", "glyphs-dit, glyphs-dit-64 or glyphs-sd (embedded), a folder, or a Hub id such as owner/name."
    )
    variant: str | None = setting(None, "Variant of the weights' files, such as fp16.")
    dtype: str = setting("float32", "Of weights and activations.", choices=DTYPES)
    device: str | None = setting(None, "As PyTorch names it; cuda where there is one, else cpu.")
    threads: int | None = setting(None, "CPU threads; PyTorch's choice if left out.", low=1)
    batch_size: int = setting(64, "Rows of a forward. Results do not depend on it, to rounding.", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        most = 4 * (os.cpu_count() or 1)  # PyTorch crashes when it gets no more threads from the system
        if self.threads is not None and self.threads > most:
            raise ValueError(f"threads must be at most {most} on this machine, not {self.threads}")

    def open(self, quiet: bool = False) -> Denoiser:
        """Opens the model.

        Args:
            quiet: without the bars and warnings of other packages.

        Raises:
            ValueError, OSError, ImportError: as `bigain.diffusion.open_model`.
        """
        import torch

        from bigain.diffusion import open_model

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return open_model(
            self.model, dtype=getattr(torch, self.dtype), device=device, variant=self.variant, quiet=quiet
        )


@dataclass(frozen=True, kw_only=True)
class DataSettings(Group):
    """Which images."""

    data: str = setting(
        "glyphs",
        "glyphs or glyphs-scenes (embedded), imagenet:PATH, imagenet100:PATH, pets:PATH, coco:PATH, folder:PATH, "
        "csv:PATH, hub:ID, or a path.",
    )
    split: str | None = setting(None, "Of the data; its own default if left out.")
    classes: str | None = setting(None, "File of the classes that take part (ImageNet-100).")
    prompts_csv: str | None = setting(None, "A csv file with the columns prompt, classname, classidx.")
    bad_images: str = setting("raise", "What to do with an image that cannot be read.", choices=("raise", "skip"))

    @property
    def is_embedded(self) -> bool:
        """Whether the data come with the package."""
        return self.data in EMBEDDED_DATA

    def unseen(self) -> DataSettings:
        """The same on embedded data's validation split where no split is named, so that the test split stays unseen."""
        return replace(self, split="validation") if self.split is None and self.is_embedded else self

    def load(self, image_size: int) -> ImageCollection:
        """The data for a model of that image size; no image is decoded yet."""
        from bigain.data import load

        return load(
            self.data,
            image_size=image_size,
            split=self.split,
            classes=self.classes,
            prompts_csv=self.prompts_csv,
            on_bad_image=self.bad_images,  # type: ignore[arg-type]
        )


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(Group):
    """Of the diffusion classifier."""

    to_keep: tuple[int, ...] | None = setting(
        None, "Classes kept after each stage; '5 1' if left out, and '1' for up to 5 classes."
    )
    n_samples: tuple[int, ...] | None = setting(
        None, "Timesteps evaluated up to each stage; '5 20' if left out, and '20' for up to 5 classes."
    )
    loss: str = setting("l2", "Of the prediction's error.", choices=("l2", "l1", "huber"))

    def resolved(self, conditions: int) -> ClassifierSettings:
        """With the stages for that many conditions where they are left out."""
        stages = self.stages(conditions)
        return replace(self, to_keep=stages.to_keep, n_samples=stages.n_samples)

    def stages(self, conditions: int) -> Stages:
        """The stages of elimination.

        Raises:
            ValueError: there can be no such stages.
        """
        from bigain.classify import Stages

        return Stages.of(conditions, self.to_keep, self.n_samples)


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(Group):
    """How images are generated."""

    sampler: str | None = setting(None, "The model's own scheduler if left out.", choices=("ddim", "euler"))
    steps: int = setting(20, "Of the sampler.", low=1)
    guidance: float | None = setting(
        None,
        "Scale of classifier-free guidance; 1 is none. If left out 4 for class labels (DiT) and 7.5 for prompts "
        "(Stable Diffusion), as in the papers.",
        low=1,
    )

    def resolved(self, kind: str) -> SamplingSettings:
        """With the papers' guidance for models of that kind of condition ("class" or "text") where none is given."""
        from bigain.generate import USUAL_GUIDANCE

        return self if self.guidance is not None else replace(self, guidance=USUAL_GUIDANCE[kind])

    def of(self, kind: str, seed: int, batch_size: int) -> Sampling:
        """What `bigain.generate.sample` takes, for a model of that kind of condition."""
        from bigain.generate import Sampling

        guidance = self.resolved(kind).guidance
        assert guidance is not None  # as just resolved
        return Sampling(self.steps, guidance, self.sampler, seed, batch_size)

    @property
    def forwards(self) -> int:
        """Forwards that generating one image takes, two per step under guidance."""
        return self.steps * (1 if self.guidance == 1 else 2)


@dataclass(frozen=True, kw_only=True)
class TimingSettings(Group):
    """How forwards are timed."""

    timing_rounds: int = setting(7, "Timed forwards per method; 0 for none.", low=0)
    timing_batch: int = setting(16, "Images of a timed forward.", low=1)


@dataclass(frozen=True, kw_only=True)
class CountSettings(Group):
    """How much is measured."""

    classify: int = setting(100, "Images to classify per method; 0 for none.", low=0)
    generate: int = setting(100, "Images to generate per method; 0 for none.", low=0)
    features: str = setting(
        "auto",
        "Network behind FID and KID: recogniser (embedded data only), inception (needs torch-fidelity), none, or "
        "auto: recogniser for embedded data, else none.",
        choices=FEATURES,
    )
    seed: int = setting(0, "Of all randomness.")
    shard: str | None = setting(
        None,
        "I/N: do the I-th of N shares of the images (1/2, 2/2 …), as one of N processes with the same --out; then run "
        "once without, which times and writes the tables.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.share  # noqa: B018 - raises for what is none

    @property
    def share(self) -> tuple[int, int]:
        """The share as (i, n), i counted from 0; (0, 1) is everything.

        Raises:
            ValueError: it is no I/N with I from 1 to N.
        """
        if self.shard is None:
            return 0, 1
        match = re.fullmatch(r"([0-9]+)/([0-9]+)", self.shard.strip())
        number, count = (int(part) for part in match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise ValueError(f"shard must be I/N with I from 1 to N, such as 2/4, not {self.shard!r}")
        return number - 1, count


@dataclass(frozen=True, kw_only=True)
class ProbeSettings(Group):
    """What is measured on a few labelled images, under the noise of the diffusion classifier."""

    images: int = setting(8, "The first that have a label.", low=2)
    timesteps: int = setting(4, "Evenly spaced.", low=1)
    loss: str = setting("l2", "Of the prediction's error.", choices=("l2", "l1", "huber"))
    seed: int = setting(1, "Of all randomness.")


@dataclass(frozen=True, kw_only=True)
class Settings(Group):
    """What a joint run is to do.

    Args:
        methods: specs or presets; made canonical, without repetition, and "none" always comes first.
        model, data, classifier, sampling, timing, counts: see the groups.
        presets: those of the methods that were given as presets, to be compared with the model once it is open.
        command: what would repeat the run, where a command asked for it; no result depends on it.

    Raises:
        ValueError: names the field, what is allowed and the value.
    """

    methods: tuple[str, ...] = setting(("none",), METHODS_HELP, short="-m")
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    timing: TimingSettings = field(default_factory=TimingSettings)
    counts: CountSettings = field(default_factory=CountSettings)
    presets: tuple[str, ...] = field(default=(), compare=False, repr=False)
    command: str | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        sources = [text for text in self.methods if text_of(text) != text]
        object.__setattr__(self, "presets", tuple(dict.fromkeys([*self.presets, *sources])))
        object.__setattr__(self, "methods", tuple(dict.fromkeys(["none", *_canonical(self.methods)])))
        counts, timing = self.counts, self.timing
        if counts.classify == counts.generate == timing.timing_rounds == 0:
            raise ValueError("one of classify, generate and timing_rounds must be above 0, not all 0")
        if counts.features == "recogniser" and not self.data.is_embedded:
            raise ValueError(
                f"features must be inception or none for {self.data.data!r}, not 'recogniser', which knows the "
                f"embedded glyphs alone"
            )

    @property
    def feature_network(self) -> str:
        """``features`` with "auto" resolved."""
        if self.counts.features != "auto":
            return self.counts.features
        return "recogniser" if self.data.is_embedded else "none"

    def identity(self) -> dict[str, Any]:
        """What the results depend on and what therefore cannot change when a run goes on.

        Methods and counts may grow; batch size, device and share change results by rounding alone.
        """
        model, data = self.model, self.data
        return {
            "model": model.model,
            "variant": model.variant,
            "data": data.data,
            "split": "test" if data.is_embedded and data.split is None else data.split,
            "classes": data.classes,
            "prompts_csv": data.prompts_csv,
            "to_keep": list(self.classifier.to_keep or ()),
            "n_samples": list(self.classifier.n_samples or ()),
            "loss": self.classifier.loss,
            "sampler": self.sampling.sampler,
            "steps": self.sampling.steps,
            "guidance": self.sampling.guidance,
            "seed": self.counts.seed,
            "dtype": model.dtype,
            "features": self.feature_network,
        }


def _canonical(texts: Sequence[str]) -> list[str]:
    """Specs of methods; what presets stand for is written out."""
    if set(texts) <= {"none"}:  # as a command's defaults do, which are not to wait for PyTorch
        return []
    from bigain.methods import parse, spec

    return [spec(parse(text_of(text))) for text in texts]


def split_specs(texts: Sequence[str]) -> tuple[str, ...]:
    """Takes lists of methods apart at spaces, semicolons, and those commas that do not part a method's own settings.

    Example:
        >>> split_specs(["lgtm-0.7,tome:ratio=0.5,destinations=random todo-2"])
        ('lgtm-0.7', 'tome:ratio=0.5,destinations=random', 'todo-2')
    """
    specs: list[str] = []
    for word in (word for text in texts for word in re.split(r"[\s;]+", text) if word):
        start = len(specs)
        for part in filter(None, word.split(",")):
            setting = re.match(r"\w+=", part) is not None  # "ratio=0.5", but not "tome:ratio=0.5"
            if setting and len(specs) > start:
                specs[-1] += f",{part}"
            else:
                specs.append(part)
    return tuple(specs)


def identity_hash(identity: dict[str, Any]) -> str:
    """SHA-256 of an identity's canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def differences(stored: dict[str, Any], requested: dict[str, Any]) -> list[str]:
    """One phrase per field in which two identities differ, with both values."""
    return [
        f"{field} is {json.dumps(stored.get(field))} there and {json.dumps(requested.get(field))} here"
        for field in dict.fromkeys([*requested, *stored])
        if stored.get(field) != requested.get(field)
    ]
