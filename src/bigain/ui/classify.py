"""The tab "Classify": the race between the classes of an image, and what it takes with and without a method."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bigain.classify import Contest, DiffusionClassifier, Prediction, Racing, Stages
from bigain.images import Pixels
from bigain.methods import Compression
from bigain.run.cost import applied
from bigain.ui.compress import LONGEST
from bigain.ui.models import Opened

ELIMINATIONS = {"racing": "Racing", "staged": "Stages, as in the papers"}
FEWEST, MOST = 2, 100  # prompts
_TIMESTEPS = 20


@dataclass(frozen=True)
class Standing:
    """Where a class is in the race.

    Args:
        name: of the class.
        behind: by how much its error exceeds the leader's, on average over the timesteps that both have.
        differences: the same at each timestep; None where it is not evaluated.
        alive: whether it is still in the race.
    """

    name: str
    behind: float
    differences: tuple[float | None, ...]
    alive: bool


@dataclass(frozen=True)
class Race:
    """One classification."""

    timesteps: tuple[int, ...]
    standings: tuple[Standing, ...] = ()  # best first
    forwards: int = 0
    seconds: float = 0.0
    prediction: Prediction | None = None  # once it is known


@dataclass(frozen=True)
class Verdict:
    """What is known so far."""

    papers: int  # forwards of the papers' stages
    compressed: Race
    plain: Race | None = None  # where it is asked for


def classify(
    opened: Opened,
    image: Pixels,
    prompts: list[str],
    methods: Compression,
    elimination: str,
    fitted: bool,
    compared: bool,
    tell: Callable[[Verdict], object],
) -> None:
    """Classifies an image, and tells after every round.

    Args:
        prompts: one per class; for a model that has classes of its own [].
        methods: for as long as more than three classes are left in a race; in stages throughout.
        fitted: whether timesteps, weights and threshold are those that the model's classifier was fitted to.
        compared: whether the same is done once more without compression.

    ValueError for prompts that are too few, too many, too long or not all different, and as the classifier.
    """
    check(opened, prompts)
    compressed = _classifier(opened, prompts, elimination, methods, fitted)
    timesteps = tuple(compressed.timesteps.tolist())
    count = len(compressed.groups)
    papers = Stages.of(count, None, None).forwards(count)
    verdict = Verdict(papers, Race(timesteps))
    with applied(opened.denoiser, methods if elimination == "staged" else Compression()):
        race = _race(compressed, image, verdict.compressed, lambda race: tell(replace(verdict, compressed=race)))
    verdict = replace(verdict, compressed=race)
    tell(verdict)
    if compared and methods:
        plain = _classifier(opened, prompts, elimination, Compression(), fitted)
        race = _race(plain, image, Race(timesteps), lambda race: tell(replace(verdict, plain=race)))
        tell(replace(verdict, plain=race))


def check(opened: Opened, prompts: list[str]) -> None:
    """Raises a ValueError for prompts that cannot be."""
    if opened.classes:
        return
    if not FEWEST <= len(prompts) <= MOST:
        raise ValueError(f"the prompts must be {FEWEST} to {MOST}, one on each line, not {len(prompts)}")
    long = [prompt for prompt in prompts if len(prompt) > LONGEST]
    if long:
        raise ValueError(f"a prompt must have at most {LONGEST} characters, not {len(long[0]):,}: {long[0][:40]!r}…")
    if len(set(prompts)) < len(prompts):
        raise ValueError("the prompts must differ, or the model cannot tell them apart")


def _classifier(
    opened: Opened, prompts: list[str], elimination: str, methods: Compression, fitted: bool
) -> DiffusionClassifier:
    race = Racing(_TIMESTEPS, methods=(methods.text, "none") if methods else ())
    asked = range(len(opened.classes)) if opened.classes else prompts
    rule = "staged" if elimination == "staged" else race
    classifier = DiffusionClassifier(opened.denoiser, asked, elimination=rule)
    if fitted:
        if opened.fitted is None:
            raise ValueError(f"fitted timesteps must lie beside {opened.name}, which has none; bigain fit makes them")
        classifier.use(opened.fitted)
    return classifier


def _race(classifier: DiffusionClassifier, image: Pixels, race: Race, tell: Callable[[Race], object]) -> Race:
    start = time.perf_counter()

    def watch(contest: Contest) -> None:
        nonlocal race
        seconds = time.perf_counter() - start
        race = replace(race, standings=standings(contest, classifier), forwards=contest.forwards, seconds=seconds)
        tell(race)

    [prediction] = classifier.predict(image, watch=watch)
    return replace(race, prediction=prediction, seconds=time.perf_counter() - start)


def standings(contest: Contest, classifier: DiffusionClassifier) -> tuple[Standing, ...]:
    """All classes of an image, best first."""
    ranking = contest.prediction(classifier.groups).ranking
    errors: npt.NDArray[np.float64] = contest.weighted
    differences = errors - errors[ranking[0]]
    last = contest.stage.max()
    return tuple(
        Standing(
            classifier.names[place],
            float(np.nanmean(differences[place])),
            tuple(None if np.isnan(value) else float(value) for value in differences[place]),
            bool(contest.stage[place] == last),
        )
        for place in ranking
    )
