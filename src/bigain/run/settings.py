"""What a joint run is to do: its settings, the grids of methods, and what identifies its results."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bigain.classify import LOSSES, Stages
from bigain.generate import SAMPLERS, USUAL_GUIDANCE
from bigain.methods import parse, spec

DTYPES = ("float32", "bfloat16", "float16")
FEATURES = ("auto", "recogniser", "inception", "none")
REFERENCE_IMAGES = 2000  # the most real images that FID compares with

_RATIOS = (0.3, 0.5, 0.7)
_FACTORS = (2, 3, 4)
_PER_FORWARD = "destinations=random,redraw=forward"
_PER_IMAGE = "destinations=random,redraw=image"

GRIDS: dict[str, tuple[str, ...]] = {
    "demo": (
        "none",
        f"tome:ratio=0.5,{_PER_IMAGE}",
        "lgtm-0.5",
        "abm-0.5",
        "sito-0.5",
        "todo-2",
        "avgpool-2",
        "iekvd-2",
    ),
    "published": (
        "none",
        *(f"tome:ratio={ratio},{_PER_IMAGE}" for ratio in _RATIOS),
        *(f"{name}-{ratio}" for name in ("lgtm", "abm", "sito") for ratio in _RATIOS),
        *(f"{name}-{factor}" for name in ("todo", "avgpool") for factor in _FACTORS),
        *(f"iekvd:factor={factor},alpha=0.9" for factor in _FACTORS),
    ),
    "full": (
        "none",
        *(f"tome:ratio={ratio},{_PER_FORWARD}" for ratio in _RATIOS),
        *(f"tome:ratio={ratio},{_PER_IMAGE}" for ratio in _RATIOS),
        *(f"{name}-{ratio}" for name in ("lgtm", "abm", "sito") for ratio in _RATIOS),
        *(f"{name}-{factor}" for name in ("todo", "avgpool") for factor in _FACTORS),
        *(f"iekvd:factor={factor},alpha=0.9" for factor in _FACTORS),
        *(f"iekvd:factor={factor},alpha=0.8>1.2" for factor in _FACTORS),
        *(f"iekvd:factor=2,alpha={alpha}" for alpha in ("0.8", "1.0", "1.1", "1.2")),
    ),
}
"""Grids of methods: of the published methods "demo" has one setting each and "published" three; "full" has ToMe in both
ways, α scheduled over the timestep and α swept at 2× besides."""


@dataclass(frozen=True)
class Sizes:
    """How much of the work a grid asks for, where the user does not say.

    Args:
        classify, generate: images per method.
        to_keep, n_samples: stages of the diffusion classifier.
        timing_rounds, timing_batch: see `Settings`.
    """

    classify: int
    generate: int
    to_keep: tuple[int, ...]
    n_samples: tuple[int, ...]
    steps: int
    timing_rounds: int
    timing_batch: int


# The demo is cut to about 10,000 forwards of an embedded model: about 2 minutes on 2 CPU cores.
SIZES: dict[str, Sizes] = {
    "demo": Sizes(25, 20, (3, 1), (2, 6), 10, 5, 16),
    "published": Sizes(1000, 1000, (3, 1), (2, 8), 20, 7, 32),
    "full": Sizes(1000, 1000, (3, 1), (2, 8), 20, 7, 32),
    "default": Sizes(100, 100, (5, 1), (5, 20), 20, 7, 16),
}


def split_specs(texts: Sequence[str]) -> tuple[str, ...]:
    """Takes lists of methods apart at spaces, semicolons, and those commas that do not part a method's own settings.

    Example:
        >>> split_specs(["lgtm-0.7,tome:ratio=0.5,destinations=random todo-2"])
        ('lgtm-0.7', 'tome:ratio=0.5,destinations=random', 'todo-2')
    """
    found: list[str] = []
    for word in (word for text in texts for word in re.split(r"[\s;]+", text) if word):
        start = len(found)
        for part in filter(None, word.split(",")):
            setting = re.match(r"\w+=", part) is not None  # "ratio=0.5", but not "tome:ratio=0.5"
            if setting and len(found) > start:
                found[-1] += f",{part}"
            else:
                found.append(part)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a joint run is to do; frozen, and checked when made.

    Args:
        model: an embedded one, such as "glyphs-dit" or "glyphs-sd", a folder or a Hub id.
        variant: of the weights' file names, such as "fp16".
        data: as `bigain.data.load` takes it.
        split: of the data; None is the data set's own default.
        classes: file of the classes that take part (ImageNet-100 needs one).
        prompts_csv: prompts that replace the data set's template.
        methods: specs or presets; made canonical, without repetition, and "none" always comes first.
        classify: images to classify per method; 0 leaves classification out.
        generate: images to generate per method; 0 leaves generation out.
        to_keep, n_samples, loss: of the diffusion classifier.
        sampler: "ddim" or "euler"; None is the model's own scheduler.
        steps: of the sampler.
        guidance: scale of classifier-free guidance, 1 for none; None is what the papers take for such a model.
        seed: of all noise.
        dtype: of the model's weights and activations; errors are always float32.
        features: network behind FID and KID: "recogniser" (embedded data only), "inception" (needs torch-fidelity),
            "none", or "auto", which is "recogniser" for embedded data and "none" for anything else.
        batch_size: rows of a forward. Changes the results by rounding alone.
        device: as PyTorch names it.
        on_bad_image: "raise" or "skip" an image that cannot be read.
        timing_rounds: timed forwards per method; 0 leaves the timing out.
        timing_batch: rows of a timed forward.
        shard: (i, n): of the chunks of images, do the i-th of every n, counted from 0, and leave the rest, and the
            timing, to other processes on the same results file. Changes no result.

    Raises:
        ValueError: names the field, its value and what is allowed.
    """

    model: str = "glyphs-dit"
    variant: str | None = None
    data: str = "glyphs"
    split: str | None = None
    classes: str | None = None
    prompts_csv: str | None = None
    methods: tuple[str, ...] = ("none",)
    classify: int = 100
    generate: int = 100
    to_keep: tuple[int, ...] = (5, 1)
    n_samples: tuple[int, ...] = (5, 20)
    loss: str = "l2"
    sampler: str | None = None
    steps: int = 20
    guidance: float | None = None
    seed: int = 0
    dtype: str = "float32"
    features: str = "auto"
    batch_size: int = 64
    device: str = "cpu"
    on_bad_image: Literal["raise", "skip"] = "raise"
    timing_rounds: int = 7
    timing_batch: int = 16
    shard: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        canonical = dict.fromkeys(["none", *(spec(parse(text)) for text in self.methods)])
        object.__setattr__(self, "methods", tuple(canonical))
        for field, low in (("classify", 0), ("generate", 0), ("steps", 1), ("batch_size", 1), ("timing_rounds", 0)):
            if getattr(self, field) < low:
                raise ValueError(f"{field} must be at least {low}, not {getattr(self, field)}")
        if self.timing_batch < 1:
            raise ValueError(f"timing_batch must be at least 1, not {self.timing_batch}")
        if not 0 <= self.shard[0] < self.shard[1]:
            raise ValueError(f"shard must be (i, n) with 0 <= i < n, not {self.shard}")
        if self.classify == self.generate == self.timing_rounds == 0:
            raise ValueError("classify, generate and timing_rounds are all 0: there is nothing to evaluate")
        if self.guidance is not None and not (math.isfinite(self.guidance) and self.guidance >= 1):
            raise ValueError(f"guidance must be finite and at least 1 (1 is none), not {self.guidance}")
        for field, allowed in (
            ("loss", tuple(LOSSES)),
            ("dtype", DTYPES),
            ("features", FEATURES),
            ("on_bad_image", ("raise", "skip")),
        ):
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}, not {getattr(self, field)!r}")
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)} or left out, not {self.sampler!r}")
        Stages(self.to_keep, self.n_samples)  # raises for stages that cannot be
        if self.features == "recogniser" and not self.is_embedded:
            raise ValueError(
                f"features='recogniser' knows the embedded glyphs alone, not {self.data!r}: give 'inception' or 'none'"
            )

    @property
    def is_embedded(self) -> bool:
        """Whether the data come with the package."""
        return self.data in ("glyphs", "glyphs-scenes")

    @property
    def feature_network(self) -> str:
        """``features`` with "auto" resolved."""
        if self.features != "auto":
            return self.features
        return "recogniser" if self.is_embedded else "none"

    def resolved(self, kind: str) -> Settings:
        """With what depends on the model's kind of conditions, "class" or "text", filled in."""
        return self if self.guidance is not None else replace(self, guidance=USUAL_GUIDANCE[kind])

    def with_split(self, split: str) -> Settings:
        """The same on another split of the data."""
        return replace(self, split=split)

    def identity(self) -> dict[str, Any]:
        """What the results depend on and what therefore cannot change when a run goes on.

        Methods and counts may grow; batch size, device and shard change results by rounding alone.
        """
        return {
            "model": self.model,
            "variant": self.variant,
            "data": self.data,
            "split": "test" if self.is_embedded and self.split is None else self.split,
            "classes": self.classes,
            "prompts_csv": self.prompts_csv,
            "to_keep": list(self.to_keep),
            "n_samples": list(self.n_samples),
            "loss": self.loss,
            "sampler": self.sampler,
            "steps": self.steps,
            "guidance": self.guidance,
            "seed": self.seed,
            "dtype": self.dtype,
            "features": self.feature_network,
        }

    def generation_forwards(self) -> int:
        """Forwards that generating one image takes, two per step under guidance."""
        return self.steps * (1 if self.guidance == 1 else 2)


def identity_hash(identity: dict[str, Any]) -> str:
    """SHA-256 of an identity's canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """One phrase per field in which two identities differ, with both values."""
    return [
        f"{field} is {json.dumps(stored.get(field))} there and {json.dumps(wanted.get(field))} here"
        for field in dict.fromkeys([*wanted, *stored])
        if stored.get(field) != wanted.get(field)
    ]
