"""Estimates of what candidates change: against finite differences, and beside measuring each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigain.backbones import compressed
from bigain.backbones.families import layout
from bigain.diffusion import Denoiser, open_model
from bigain.methods import parse
from bigain.run.probe import Probe
from bigain.run.settings import DataSettings, ModelSettings, ProbeSettings
from bigain.search import estimate as module
from bigain.search.estimate import VECTORS, estimate
from bigain.search.offers import Space, in_layers, usual_candidates
from experiments.estimates import RandomSDXL, compare

FEW = ("avgpool-2", "tome:ratio=0.5,locations=self_attention/mlp,features=first")


def probe_of(denoiser: Denoiser, model: str, images: int = 2, timesteps: int = 2, data: str = "glyphs") -> Probe:
    settings, source = ProbeSettings(images=images, timesteps=timesteps), DataSettings(data=data, split="validation")
    return Probe.of(ModelSettings(model=model, batch_size=8), source, settings, denoiser)


def finite_difference(probe: Probe, rows: Tensor, layer: int, method: Any, other: bool) -> Tensor:
    """J·Δ of one candidate, by moving one block's output a little along its change."""
    block = layout(probe.denoiser.model).layers[layer].block
    seen: list[list[Tensor]] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        seen.append(module._parts(output))

    hook = block.register_forward_hook(keep)
    probe.predicted(rows, other)
    with compressed(probe.denoiser.model, method):
        probe.predicted(rows, other)
    hook.remove()
    step, moved = 0.1, []
    for sign in (1, -1):

        def move(_: Any, __: Any, output: Any, sign: int = sign) -> Any:
            deltas = iter([after - before for before, after in zip(*seen, strict=True)])
            return module._mapped(output, lambda part: part + sign * step * next(deltas))

        hook = block.register_forward_hook(move)
        moved.append(probe.predicted(rows, other).double())
        hook.remove()
    return (moved[0] - moved[1]) / (2 * step)


@pytest.mark.parametrize("name", ["dit", "unet", "sdxl"])
def test_a_product_is_the_derivative_along_what_a_candidate_changes_in_its_block(
    name: str, tiny_model: Path, pipeline_folder: Path
) -> None:
    folder = str({"dit": tiny_model, "unet": pipeline_folder, "sdxl": "sdxl"}[name])
    denoiser = RandomSDXL() if name == "sdxl" else open_model(folder)
    probe = probe_of(denoiser, folder)
    check_products(probe, in_layers(FEW, Space.of(denoiser))[:6])


@pytest.mark.parametrize("name", ["sd3", "flux", "qwen", "zimage", "wan"])
def test_products_of_models_that_attend_jointly_or_over_video(name: str, flows: dict[str, Any]) -> None:
    video = name == "wan"
    denoiser = open_model(flows[name].build(), **(flows[name].sizes | (dict(image_size=32) if video else {})))
    if video:
        denoiser.pipe.tokenizer.model_max_length = 99  # or the ways of letters are cut off
    probe = probe_of(denoiser, name, data="glyphs-moving" if video else "glyphs")
    space = Space.of(denoiser)
    usual = {text.partition(":")[0]: text for text in usual_candidates(denoiser, space)}  # one of each method
    check_products(probe, in_layers((*usual.values(), "avgpool-2"), space)[:8])


def check_products(probe: Probe, placed: Sequence[tuple[int, Any]]) -> None:
    """Against finite differences, under both classes."""
    rows = torch.tensor([0, 3])
    vectors = torch.stack([module._vectors(probe, int(row)) for row in rows], 1)
    for other in (False, True):
        found = module._products(probe, rows, placed, other)
        assert found.shape == (len(placed), VECTORS, 2)
        for (layer, method), products in zip(placed, found, strict=True):
            moved = finite_difference(probe, rows, layer, method, other)
            expected = (vectors * moved).flatten(2).sum(2)
            torch.testing.assert_close(products, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
            assert products.abs().max() > 0


def test_changes_are_means_of_squared_products_of_both_classes(
    model: ModelSettings, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = probe_of(denoiser, model.model)
    placed = in_layers(FEW, Space.of(denoiser))

    def products(_: Probe, rows: Tensor, given: Sequence[Any], other: bool) -> Tensor:
        values = rows[None, None] + 10.0 * torch.arange(len(given))[:, None, None] + torch.tensor([[[1.0], [3.0]]])
        return values.double() * (3 if other else 1)

    monkeypatch.setattr(module, "_products", products)
    elements = 3 * 16 * 16
    for number, (change, contrast) in enumerate(estimate(probe, placed)):
        for position in range(2):
            squares = [(2 * image + position + 10 * number + vector) ** 2 for image in range(2) for vector in (1, 3)]
            assert change[position] == pytest.approx(sum(squares) / 4 / elements)
            assert contrast[position] == pytest.approx(4 * change[position])


def test_estimates_repeat_whatever_the_batch_and_leave_the_model_as_it_was(
    model: ModelSettings, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = probe_of(denoiser, model.model)
    placed = in_layers(FEW, Space.of(denoiser))
    state = torch.get_rng_state()
    counts: list[tuple[int, int]] = []
    first = estimate(probe, placed, lambda done, of: counts.append((done, of)))
    assert counts == [(4, 4)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.requires_grad and weight.grad is None for weight in denoiser.model.parameters())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in denoiser.model.modules())
    monkeypatch.setattr(module, "_KEPT", 1)  # one row at a time
    counts.clear()
    second = estimate(probe, placed, lambda done, of: counts.append((done, of)))
    assert [done for done, _ in counts] == [1, 2, 3, 4]
    for one, two in zip(itertools.chain(*first), itertools.chain(*second), strict=True):
        assert one == pytest.approx(two, rel=1e-4)


def test_gradient_checkpointing_is_refused(model: ModelSettings, denoiser: Denoiser) -> None:
    probe = probe_of(denoiser, model.model)
    denoiser.model.enable_gradient_checkpointing()
    with pytest.raises(ValueError, match=r"gradient checkpointing must be off .* \(--exact\)"):
        estimate(probe, [(0, parse("todo:factor=2,layers=0")[0])])


CANDIDATES = (
    "avgpool:factor=2",
    "avgpool:factor=4",
    "iekvd:factor=2",
    "quadtree:ratio=0.5,size_aware=true,features=first",
    "quadtree:ratio=0.9,queries=full,size_aware=true,features=first",
    "abm:ratio=0.5,size_aware=true,features=first",
    "tome:ratio=0.7,locations=self_attention/mlp,size_aware=true,destinations=random",
)


@pytest.mark.slow
def test_estimates_rank_layers_and_candidates_as_measured_values_do() -> None:
    """Of as many images and timesteps as `bigain allocate` takes; changes alone lie closer together."""
    found = compare(probe_of(open_model("glyphs-dit"), "glyphs-dit", images=8, timesteps=4), CANDIDATES)
    assert len(found.placed) == 7 * 6
    correlations = found.correlations()
    assert min(correlations["cost"], correlations["contrast"]) >= 0.97
    assert correlations["change"] >= 0.95
    ratios = found.estimated / found.measured
    assert ((ratios > 0.4) & (ratios < 2)).all()


@pytest.mark.slow
def test_many_layers_are_estimated_in_a_tenth_of_the_time() -> None:
    """22 layers; what it takes does not grow with their number, beyond that of a forward."""
    found = compare(probe_of(RandomSDXL(), "sdxl"), CANDIDATES)
    assert found.seconds[1] >= 10 * found.seconds[0]
    assert found.correlations()["cost"] >= 0.95
