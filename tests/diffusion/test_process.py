from __future__ import annotations

import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from bigain.diffusion import PREDICTIONS, Process, process_of
from bigain.diffusion.process import Convention

TIMESTEPS = torch.tensor([0, 25, 500, 999])


def _process(prediction: str) -> Process:
    if prediction == "flow":
        return process_of(FlowMatchEulerDiscreteScheduler(shift=3.0))
    return process_of(DDIMScheduler(beta_schedule="scaled_linear", prediction_type=prediction))


def _pair(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 3, 5, 6, generator=generator, dtype=dtype).unbind(0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_noise_and_target_against_the_formulas_in_scalars(prediction):
    process = _process(prediction)
    x0, noise = _pair()
    x_t, target = process.noise(x0, noise, TIMESTEPS), process.target(x0, noise, TIMESTEPS)
    alphas = DDIMScheduler(beta_schedule="scaled_linear").alphas_cumprod.double()
    for row, t in enumerate(TIMESTEPS.tolist()):
        x, e = x0[row, 1, 2, 3].item(), noise[row, 1, 2, 3].item()
        a = alphas[t].item()
        expected = {
            "epsilon": (math.sqrt(a) * x + math.sqrt(1 - a) * e, e),
            "v_prediction": (math.sqrt(a) * x + math.sqrt(1 - a) * e, math.sqrt(a) * e - math.sqrt(1 - a) * x),
            "sample": (math.sqrt(a) * x + math.sqrt(1 - a) * e, x),
            "flow": ((1 - t / 1000) * x + t / 1000 * e, e - x),
        }[prediction]
        assert x_t[row, 1, 2, 3].item() == pytest.approx(expected[0], abs=1e-12)
        assert target[row, 1, 2, 3].item() == pytest.approx(expected[1], abs=1e-12)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_noise_and_velocity_agree_with_the_scheduler(prediction):
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=prediction)
    x0, noise = _pair(torch.float32)
    process = process_of(scheduler)
    torch.testing.assert_close(process.noise(x0, noise, TIMESTEPS), scheduler.add_noise(x0, noise, TIMESTEPS))
    if prediction == "v_prediction":
        torch.testing.assert_close(process.target(x0, noise, TIMESTEPS), scheduler.get_velocity(x0, noise, TIMESTEPS))


def test_an_euler_step_of_flow_matching_to_zero_lands_on_x0():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(1)
    process = process_of(scheduler)
    x0, noise = _pair(torch.float32)
    t = torch.full((len(x0),), float(scheduler.timesteps[0]))
    x_t, target = process.noise(x0, noise, t), process.target(x0, noise, t)
    landed = scheduler.step(target, scheduler.timesteps[0], x_t).prev_sample
    torch.testing.assert_close(landed, x0, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_half_precision_is_computed_in_float32(prediction):
    process = _process(prediction)
    x0, noise = (x.bfloat16() for x in _pair())
    assert process.noise(x0, noise, TIMESTEPS).dtype == torch.float32
    torch.testing.assert_close(
        process.target(x0, noise, TIMESTEPS), process.target(x0.float(), noise.float(), TIMESTEPS), atol=0, rtol=0
    )


def test_twenty_timesteps_are_those_of_the_protocol():
    assert _process("epsilon").timesteps(20).tolist() == list(range(25, 1000, 50))


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 1000))
def test_timesteps_are_distinct_in_range_and_evenly_spaced(count):
    t = _process("flow").timesteps(count).tolist()
    assert t == [int((i + 0.5) * 1000 / count + 1e-9) for i in range(count)]
    assert len(set(t)) == count
    assert t[0] >= 0
    assert t[-1] < 1000


@pytest.mark.parametrize("count", [0, 1001])
def test_too_few_or_too_many_timesteps(count):
    with pytest.raises(ValueError, match=f"must be from 1 to 1000, not {count}"):
        _process("epsilon").timesteps(count)


@pytest.mark.parametrize(
    ("scheduler", "prediction"),
    [
        (DDPMScheduler(), "epsilon"),
        (PNDMScheduler(prediction_type="v_prediction"), "v_prediction"),
        (EulerDiscreteScheduler(prediction_type="sample"), "sample"),
        (DPMSolverMultistepScheduler(), "epsilon"),
        (DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True), "flow"),
        (FlowMatchEulerDiscreteScheduler(), "flow"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_a_scheduler_predicts(scheduler, prediction):
    process = process_of(scheduler)
    assert process.prediction == prediction
    assert process.steps == 1000


def test_an_unsupported_scheduler_is_named_with_what_is_supported():
    with pytest.raises(ValueError, match=r"the scheduler must .*DDIM.*FlowMatch.*not EDMEulerScheduler"):
        process_of(EDMEulerScheduler())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("noise", 10, torch.ones(10)), "prediction must be one of .*, not 'noise'"),
        (("epsilon", 0, torch.ones(0)), "steps must be at least 1, not 0"),
        (("epsilon", 10, None), "alphas_cumprod must be given for every prediction but 'flow'"),
        (("flow", 10, torch.ones(10)), "alphas_cumprod must be given for every prediction but 'flow'"),
        (("epsilon", 10, torch.ones(9)), r"alphas_cumprod must have shape \(10,\), not \(9,\)"),
    ],
)
def test_a_process_checks_its_fields(arguments, message):
    with pytest.raises(ValueError, match=message):
        Process(*arguments)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_an_exact_prediction_leads_back_to_x0(prediction):
    process = _process(prediction)
    x0, noise = _pair()
    t = TIMESTEPS if prediction != "flow" else TIMESTEPS.double() + 0.5
    x_t, target = process.noise(x0, noise, t), process.target(x0, noise, t)
    torch.testing.assert_close(process.x0(x_t, target, t), x0, atol=1e-9, rtol=0)


@pytest.mark.parametrize("weighting", ["velocity", "epsilon"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_an_error_in_another_unit_is_that_of_what_follows_from_the_prediction(prediction, weighting):
    """Of the velocity and the noise that a wrong prediction stands for at the same x_t."""
    process = _process(prediction)
    x0, noise = _pair()
    t = torch.tensor([25, 300, 500, 975])
    x_t, target = process.noise(x0, noise, t), process.target(x0, noise, t)
    wrong = target + 0.1
    guess = process.x0(x_t, wrong, t)
    signal, spread = process._coefficients(t, x0)
    implied = (x_t - signal * guess) / spread
    right, said = noise, implied
    if weighting == "velocity":
        right, said = (process.target(x0, noise, t), process.target(guess, implied, t)) if prediction == "flow" else (
            signal * noise - spread * x0, signal * implied - spread * guess
        )  # fmt: skip
    expected = (said - right).flatten(1)[:, 0].abs()
    torch.testing.assert_close(0.1 * process.scale(t, weighting).double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_likelihood_weighs_the_error_of_x0_by_the_fall_of_signal_to_noise(prediction):
    process = _process(prediction)
    x0, noise = _pair()
    t = torch.tensor([25, 300, 500, 975])
    x_t, target = process.noise(x0, noise, t), process.target(x0, noise, t)
    error = (process.x0(x_t, target + 0.1, t) - x0).flatten(1)[:, 0]
    signal, spread = (part.flatten().double() for part in process._coefficients(t, x0))
    before = [part.flatten().double() for part in process._coefficients(t - 1, x0)]
    fall = 1000 / 2 * ((before[0] / before[1]) ** 2 - (signal / spread) ** 2)
    tolerance = 0.07 if prediction == "flow" else 1e-3  # a rate, not a difference
    torch.testing.assert_close(
        (0.1 * process.scale(t, "likelihood").double()) ** 2, fall * error**2, rtol=tolerance, atol=0
    )


def test_the_likelihood_of_a_flow_is_as_in_closed_form():
    s = torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(_process("flow").scale(1000 * s, "likelihood") ** 2, (1 - s) / s)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_an_error_that_is_asked_as_the_model_predicts_stays_as_it_is(prediction):
    assert torch.equal(_process(prediction).scale(TIMESTEPS, "prediction"), torch.ones(4))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_likelihood_has_no_timestep_0_and_other_weightings_are_refused(prediction):
    with pytest.raises(ValueError, match=r"timesteps must lie above 0 where .* likelihood"):
        _process(prediction).scale(TIMESTEPS, "likelihood")
    with pytest.raises(ValueError, match=r"weighting must be one of prediction, velocity, .* not 'snr'"):
        _process(prediction).scale(TIMESTEPS, "snr")


def test_time_and_output_of_a_network_that_runs_the_other_way():
    t = torch.tensor([0, 250, 1000])
    assert Convention().told(t, 1000) is t
    assert Convention(1000).told(t, 1000).tolist() == [0.0, 0.25, 1.0]
    assert Convention(1000, reverses=True).told(t, 1000).tolist() == [1.0, 0.75, 0.0]
    assert Convention(reverses=True).pointed(torch.ones(1)).item() == -1
