"""What is to be done: groups of settings whose fields carry their own help, checks and defaults.

A command takes groups as they are here. Nothing here imports PyTorch before a model is opened.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigain import zoo
from bigain.methods import Compression
from bigain.zoo.presets import text_of

if TYPE_CHECKING:
    from bigain.classify import DiffusionClassifier, Elimination, Hierarchy
    from bigain.data import ImageCollection
    from bigain.diffusion import Denoiser
    from bigain.generate import Sampling

METHODS_HELP = (
    "Methods, with commas or spaces between: a shorthand (lgtm-0.7), a spec (tome:ratio=0.5,cell=4x4), a preset of a "
    "model (glyphs-dit/fast) or a preset file (.json). See bigain methods."
)
WEIGHTING_HELP = (
    "What errors are measured in: what the model predicts, which is the velocity under flow matching; or the velocity, "
    "the noise or the likelihood that follow from it."
)
WEIGHTINGS = ("prediction", "velocity", "epsilon", "likelihood")
SPACING_HELP = "Of the timesteps; scheduler: by the shifted schedule of a model trained by flow matching."
SPACINGS = ("uniform", "scheduler")
EMBEDDED = ("glyphs", "glyphs-scenes", "glyphs-moving")
REFERENCE_IMAGES = 2000  # the most real images that FID compares with


def setting(
    default: Any, help: str, *, low: float | None = None, choices: tuple[str, ...] = (), short: str | None = None
) -> Any:
    """A field of a group: default, help text, the least value or the values that it may have, and a one-letter flag."""
    return field(default=default, metadata={"help": help, "low": low, "choices": choices, "short": short})


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of settings: frozen, and checked when made, with a ValueError for a value that is not allowed."""

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
        "glyphs-dit",
        f"One of {', '.join(zoo.denoisers())} (embedded), a folder, or a Hub id such as owner/name.",
    )
    variant: str | None = setting(None, "Variant of the weights' files, such as fp16.")
    dtype: str = setting("float32", "Of weights and activations.", choices=("float32", "bfloat16", "float16"))
    device: str | None = setting(None, "As PyTorch names it; cuda where there is one, else cpu.")
    threads: int | None = setting(None, "CPU threads; PyTorch's choice if left out.", low=1)
    batch_size: int = setting(64, "Rows of a forward. Results do not depend on it, to rounding.", low=1)
    image_size: int | None = setting(None, "In pixels, of models that take many sizes; their own if left out.", low=1)
    frames: int | None = setting(None, "Of a video; 1 makes a video model one of images.", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        most = 4 * (os.cpu_count() or 1)  # PyTorch crashes when it gets no more threads from the system
        if self.threads is not None and self.threads > most:
            raise ValueError(f"threads must be at most {most} on this machine, not {self.threads}")

    def identity(self) -> dict[str, Any]:
        """What results depend on; batch size, device and threads change them by rounding alone."""
        sizes = {"image_size": self.image_size, "frames": self.frames}
        given = {name: size for name, size in sizes.items() if size is not None}
        return {"model": self.model, "variant": self.variant, "dtype": self.dtype} | given

    def open(self, quiet: bool = False) -> Denoiser:
        """Opens the model, as `bigain.diffusion.open_model`; ``quiet`` without the bars and warnings of others."""
        import torch

        from bigain.diffusion import open_model

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return open_model(
            self.model,
            dtype=getattr(torch, self.dtype),
            device=device,
            variant=self.variant,
            quiet=quiet,
            image_size=self.image_size,
            frames=self.frames,
        )


@dataclass(frozen=True, kw_only=True)
class DataSettings(Group):
    """Which images."""

    data: str = setting(
        "glyphs",
        "glyphs, glyphs-scenes or glyphs-moving (embedded), imagenet:PATH, imagenet100:PATH, pets:PATH, coco:PATH, "
        "folder:PATH, csv:PATH, hub:ID, or a path.",
    )
    split: str | None = setting(None, "Of the data; its own default if left out.")
    classes: str | None = setting(None, "File of the classes that take part (ImageNet-100).")
    prompts_csv: str | None = setting(None, "A csv file with the columns prompt, classname, classidx.")
    bad_images: str = setting("raise", "What to do with an image that cannot be read.", choices=("raise", "skip"))

    @property
    def is_embedded(self) -> bool:
        """Whether the data come with the package."""
        return self.data in EMBEDDED

    def identity(self) -> dict[str, Any]:
        """What results depend on."""
        split = "test" if self.is_embedded and self.split is None else self.split
        return {"data": self.data, "split": split, "classes": self.classes, "prompts_csv": self.prompts_csv}

    def unseen(self) -> DataSettings:
        """The same on embedded data's validation split where no split is named, so that the test split stays unseen."""
        return replace(self, split="validation") if self.split is None and self.is_embedded else self

    def load(self, denoiser: Denoiser) -> ImageCollection:
        """The data at the size of a model, as videos for a model of these; no image is decoded yet."""
        from bigain.data import load

        return load(
            self.data,
            image_size=denoiser.image_size,
            frames=denoiser.frames if denoiser.is_video else None,
            split=self.split,
            classes=self.classes,
            prompts_csv=self.prompts_csv,
            on_bad_image=self.bad_images,  # type: ignore[arg-type]
        )


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(Group):
    """Of the diffusion classifier."""

    elimination: str = setting(
        "staged",
        "staged, as in the papers; racing: a class drops out once another is clearly better; or the file of a tree of "
        "classes for a text model, .json or WordNet's .txt: groups first, then a race.",
    )
    fitted: str | None = setting(
        None,
        "Timesteps, weights and threshold that bigain fit found: its file, or the name of an embedded model; evenly "
        "spaced timesteps if left out.",
    )
    to_keep: tuple[int, ...] | None = setting(
        None, "Classes kept after each stage; '5 1' if left out, and '1' for up to 5 classes."
    )
    n_samples: tuple[int, ...] | None = setting(
        None, "Timesteps evaluated up to each stage; '5 20' if left out, '20' for up to 5 classes and for racing."
    )
    loss: str = setting("l2", "Of the prediction's error.", choices=("l2", "l1", "huber"))
    weighting: str = setting("prediction", WEIGHTING_HELP, choices=WEIGHTINGS)
    spacing: str = setting("uniform", SPACING_HELP, choices=SPACINGS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.elimination not in ("staged", "racing") and not self.is_tree:
            raise ValueError(
                f"elimination must be staged, racing or the .json or .txt of a tree of classes, not "
                f"{self.elimination!r}"
            )

    def check_fit(self, model: ModelSettings) -> None:
        """Raises a ValueError where the fit of one embedded model is given to another model."""
        if self.fitted in zoo.names() and self.fitted != model.model:
            raise ValueError(f"fitted must be of the model that classifies, {model.model}, not {self.fitted}")

    @property
    def is_tree(self) -> bool:
        """Whether the classes are eliminated along a tree."""
        return self.elimination.endswith((".json", ".txt"))

    def tree(self, names: Sequence[str], template: str, wnids: Sequence[str] | None = None) -> Hierarchy | None:
        """The tree of these classes, if there is one; its groups are asked by the template."""
        if not self.is_tree:
            return None
        from bigain.classify import Hierarchy, elimination_of

        race = elimination_of("racing", len(names), self.to_keep, self.n_samples)
        return Hierarchy.read(Path(self.elimination), names, template, wnids, race=race)

    def resolved(self, conditions: int) -> ClassifierSettings:
        """With the stages for that many conditions where they are left out, or the timesteps of a race."""
        if self.elimination != "staged":
            return replace(self, n_samples=(self.made(conditions).timesteps,))
        from bigain.classify import Stages

        stages = Stages.of(conditions, self.to_keep, self.n_samples)
        return replace(self, to_keep=stages.to_keep, n_samples=stages.n_samples)

    def of(
        self, denoiser: Denoiser, conditions: Any, seed: int, batch_size: int, tree: Hierarchy | None = None
    ) -> DiffusionClassifier:
        """The classifier of a model, among ``conditions`` as it takes them, along :meth:`tree` where there is one."""
        from bigain.classify import DiffusionClassifier, Scoring

        classifier = DiffusionClassifier(
            denoiser,
            conditions,
            to_keep=None if tree else self.to_keep,
            n_samples=None if tree else self.n_samples,
            elimination=tree or self.elimination,
            loss=Scoring(self.loss, self.weighting, self.spacing),
            batch_size=batch_size,
            seed=seed,
        )
        return classifier if self.fitted is None else classifier.use(self.fitted)

    def made(self, conditions: int) -> Elimination:
        """How so many conditions are eliminated, at the end of a tree too; ValueError where that cannot be."""
        from bigain.classify import elimination_of

        name = "racing" if self.is_tree else self.elimination
        return elimination_of(name, conditions, self.to_keep, self.n_samples)


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(Group):
    """How images are generated."""

    sampler: str | None = setting(None, "The model's own scheduler if left out.", choices=("ddim", "euler"))
    steps: int = setting(20, "Of the sampler.", low=1)
    guidance: float | None = setting(
        None,
        "Scale of classifier-free guidance; 1 is none. If left out as in the papers: 4 for class labels (DiT), 7.5 for "
        "Stable Diffusion 1, 2 and XL, of other models their pipeline's.",
        low=1,
    )

    def resolved(self, denoiser: Denoiser) -> SamplingSettings:
        """With the model's usual guidance where none is given."""
        return self if self.guidance is not None else replace(self, guidance=denoiser.usual_guidance)

    def of(self, denoiser: Denoiser, seed: int, batch_size: int) -> Sampling:
        """What `bigain.generate.sample` takes for a model."""
        from bigain.generate import Sampling

        guidance = self.resolved(denoiser).guidance
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
class BenchSettings(Group):
    """What `bigain bench` times."""

    rounds: int = setting(7, "How often each method is timed.", low=1)
    text: int | None = setting(None, "Tokens of text; as many as its pipeline gives if left out.", low=1)
    compile: bool = setting(False, "Time each as torch.compile has it, too.")
    channels_last: bool = setting(False, "Keep the weights of convolutions in this memory format.")


@dataclass(frozen=True, kw_only=True)
class CountSettings(Group):
    """How much is measured."""

    classify: int = setting(100, "Images to classify per method; 0 for none.", low=0)
    generate: int = setting(100, "Images to generate per method; 0 for none.", low=0)
    features: str = setting(
        "auto",
        "Network behind FID and KID: recogniser (embedded data only), inception (needs torch-fidelity), none, or "
        "auto: recogniser for embedded data, else none.",
        choices=("auto", "recogniser", "inception", "none"),
    )
    seed: int = setting(0, "Of all randomness.")


@dataclass(frozen=True, kw_only=True)
class EngineSettings(Group):
    """Who does it. Results do not depend on it."""

    engine: str = setting(
        "local",
        "local, this process; or ray, a process for each GPU, or for each --threads CPU cores (1 if left out), on this "
        "machine or a cluster.",
        choices=("local", "ray"),
    )
    workers: int | None = setting(None, "Processes on Ray; as many as there is room for if left out.", low=1)
    address: str | None = setting(
        None, "Of a running Ray cluster, such as auto; Ray is started on this machine if left out."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("workers", "address"):
            if self.engine != "ray" and getattr(self, name) is not None:
                raise ValueError(f"{name} must be left out unless the engine is ray (--engine ray)")


@dataclass(frozen=True, kw_only=True)
class ProbeSettings(Group):
    """What is measured on a few labelled images, under the noise of the diffusion classifier."""

    images: int = setting(8, "The first that have a label.", low=2)
    timesteps: int = setting(4, "How many, from little noise to much.", low=1)
    spacing: str = setting("uniform", SPACING_HELP, choices=SPACINGS)
    loss: str = setting("l2", "Of the prediction's error.", choices=("l2", "l1", "huber"))
    seed: int = setting(1, "Of all randomness.")


@dataclass(frozen=True, kw_only=True)
class Settings(Group):
    """What a joint run is to do; ``methods`` (specs or presets) are made canonical, each once, and "none" is first."""

    methods: tuple[str, ...] = setting(("none",), METHODS_HELP, short="-m")
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    timing: TimingSettings = field(default_factory=TimingSettings)
    counts: CountSettings = field(default_factory=CountSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    # Those of the methods that were given as presets, to be compared with the model once it is open.
    presets: tuple[str, ...] = field(default=(), compare=False, repr=False)
    command: str | None = field(default=None, compare=False, repr=False)  # what would repeat the run, where asked for

    def __post_init__(self) -> None:
        super().__post_init__()
        sources = [text for text in self.methods if text_of(text) != text]
        object.__setattr__(self, "presets", tuple(dict.fromkeys([*self.presets, *sources])))
        object.__setattr__(self, "methods", tuple(dict.fromkeys(["none", *(one.text for one in read(self.methods))])))
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
        """What the results depend on, so that it cannot change when a run goes on; methods and counts may grow."""
        own = {"weighting": self.classifier.weighting, "spacing": self.classifier.spacing}
        usual = {"weighting": "prediction", "spacing": "uniform"}  # which older results do not name
        return (
            self.model.identity()
            | self.data.identity()
            | {name: value for name, value in own.items() if value != usual[name]}
            | {
                "elimination": Path(self.classifier.elimination).name,  # a tree may move
                "to_keep": list(self.classifier.to_keep or ()),
                "n_samples": list(self.classifier.n_samples or ()),
                "loss": self.classifier.loss,
                "sampler": self.sampling.sampler,
                "steps": self.sampling.steps,
                "guidance": self.sampling.guidance,
                "seed": self.counts.seed,
                "features": self.feature_network,
            }
        )


def read(texts: Iterable[str]) -> tuple[Compression, ...]:
    """The methods that texts stand for, presets of models and preset files included; without repetition."""
    return tuple(dict.fromkeys(Compression.of(text_of(text)) for text in texts))
