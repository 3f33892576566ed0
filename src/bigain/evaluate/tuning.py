"""Searches the method and settings that meet a target on a model: trials of the joint run, proposed by Optuna.

Each trial is one method in an ordinary results file, so nothing is computed twice and everything can be looked at
afterwards. Its values - speed-up, accuracy, PSNR - are what Optuna's multi-objective TPE sampler (Ozaki et al., 2022)
learns from. What every layer offers is measured first: trials allocate these offers to the layers, or let layers join
one method in order of their bargain. The sampler is seeded anew for each
trial, so a search that was stopped goes on as it would have.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from bigain.diffusion import Denoiser, open_model
from bigain.evaluate.engine import load_data, run
from bigain.evaluate.offers import CANDIDATES, measure_offers
from bigain.evaluate.plan import Settings, differences, identity_hash
from bigain.evaluate.space import Space
from bigain.evaluate.store import Store
from bigain.evaluate.summary import summarise
from bigain.evaluate.timing import environment, measure
from bigain.evaluate.trials import SAME_IMAGES, TARGETS, Target, Trial
from bigain.methods import spec

if TYPE_CHECKING:
    import optuna

_STARTUP = 16  # trials at random, before the sampler learns from them
_OFFER_IMAGES = 8
_FIRST_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
_TIMING_ROUNDS = 5


def tune(
    settings: Settings,
    targets: Sequence[Target],
    folder: Path,
    *,
    trials: int = 60,
    cost: str = "time",
    done: Callable[[Trial], None] = lambda trial: None,
    counted: Callable[[int], object] = lambda number: None,
    offers_counted: Callable[[int, int], object] = lambda done, of: None,
) -> list[Trial]:
    """Tries methods until there are ``trials``; goes on where an earlier search in ``folder`` was stopped.

    Args:
        settings: of the joint run that measures a trial; its methods are ignored.
        targets: at least one.
        folder: of ``results.sqlite`` (the joint run's), ``tune.sqlite`` (Optuna's) and ``offers.json`` (the layers').
        trials: in all, earlier ones counted in.
        cost: "time" takes the median over forwards that alternate with uncompressed ones; "flops" the count.
        done: called with each method that was measured.
        counted: called with the number of trials done before, then with 1 after each.
        offers_counted: called with the layers' offers measured, and their number, before the first trial.

    Returns:
        All trials, the earlier ones too, without repetitions.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
        ValueError: a target needs what ``settings`` leaves out, or the folder holds another search.
    """
    optuna = _optuna()
    if cost not in ("time", "flops"):
        raise ValueError(f"cost must be time or flops, not {cost!r}")
    if trials < 1:
        raise ValueError(f"trials must be at least 1, not {trials}")
    _check(targets, settings)
    settings = replace(settings, methods=("none",), timing_rounds=0)
    denoiser = open_model(
        settings.model, dtype=getattr(torch, settings.dtype), device=settings.device, variant=settings.variant
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.sqlite"
    run(settings, path, denoiser=denoiser)
    with Store(path) as store:
        identity: dict[str, Any] = {"run": identity_hash(store.identity), "cost": cost}
        identity |= {"classify": settings.classify, "generate": settings.generate}
        identity |= {"candidates": identity_hash({"candidates": CANDIDATES})[:16]}  # trials allocate what they offer
    if cost == "time":  # of other machines, or batches, they do not compare
        identity |= environment(denoiser.device, {"timing_batch": settings.timing_batch})
    study = _study(folder / "tune.sqlite", identity, objectives=1 + bool(settings.classify) + bool(settings.generate))
    labelled = sum(bool(entry.labels) for entry in load_data(settings, denoiser, settings.split).entries)
    offered = measure_offers(
        settings, denoiser, folder / "offers.json", images=min(_OFFER_IMAGES, labelled), counted=offers_counted
    )
    space = replace(Space.of(denoiser), offers=offered.offers)
    for killed in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        study.tell(killed.number, state=optuna.trial.TrialState.FAIL)
    complete = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    found = {trial.method: trial for trial in (Trial(**each.user_attrs["found"]) for each in complete)}
    counted(min(len(complete), trials))
    for index in range(len(complete), trials):
        study.sampler = _sampler(settings.seed * 1_000_003 + index, index)
        asked = study.ask()
        method = spec(space.suggest(asked))
        if method not in found:
            found[method] = _measured(method, settings, path, denoiser, cost)
            done(found[method])
        asked.set_user_attr("found", asdict(found[method]))
        study.tell(asked, found[method].values())
        counted(1)
    return list(found.values())


def _sampler(seed: int, index: int) -> optuna.samplers.BaseSampler:
    """TPE; the first trials allocate shares of what can be saved, from little to much."""
    optuna = _optuna()
    with warnings.catch_warnings():  # these two are called experimental, for years
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        tpe = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP, multivariate=True, group=True)
        if index >= len(_FIRST_SHARES):
            return tpe
        return optuna.samplers.PartialFixedSampler({"approach": "allocated", "share": _FIRST_SHARES[index]}, tpe)


def _measured(method: str, settings: Settings, path: Path, denoiser: Denoiser, cost: str) -> Trial:
    """Runs a method in the joint run, and reads off what counts."""
    run(replace(settings, methods=(method,)), path, denoiser=denoiser)
    with Store(path) as store:
        rows = {row.method: row for row in summarise(store).rows}
    row, plain = rows[method], rows["none"]
    if cost == "flops":
        assert row.flops is not None
        assert plain.flops is not None
        speed_up = plain.flops / row.flops
    else:
        times = measure(
            denoiser, ("none", method), denoiser.any_condition, batch_size=settings.timing_batch, rounds=_TIMING_ROUNDS
        )
        speed_up = median(a / b for a, b in zip(times["none"], times[method], strict=True))
    psnr = SAME_IMAGES if settings.generate and row.psnr is None else row.psnr  # None: the very same images
    return Trial(method, round(speed_up, 4), row.accuracy, row.change, psnr)


def _check(targets: Sequence[Target], settings: Settings) -> None:
    if not targets:
        raise ValueError(f"give at least one target: {', '.join(TARGETS)}")
    for target in targets:
        needs = {"accuracy-loss": "classify", "psnr": "generate"}.get(target.kind)
        if needs is not None and getattr(settings, needs) == 0:
            raise ValueError(f"the target {target} needs {needs} to be at least 1")


def _study(path: Path, identity: dict[str, Any], objectives: int) -> optuna.Study:
    """Optuna's study in a file, begun where there is none.

    Raises:
        ValueError: the file holds another search.
    """
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="bigain tune",
        storage=f"sqlite:///{path}",
        directions=["maximize"] * objectives,
        load_if_exists=True,
    )
    there = study.user_attrs.get("identity", identity)
    if there != identity:
        raise ValueError(
            f"{path} holds another search: {'; '.join(differences(there, identity))}. Give another folder with --out"
        )
    study.set_user_attr("identity", identity)
    return study


def _optuna() -> Any:
    if importlib.util.find_spec("optuna") is None:
        raise ModuleNotFoundError('the search needs Optuna: pip install "bigain[tune]"')
    import optuna

    return optuna
