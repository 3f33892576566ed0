"""Token scores against loops over tokens, neighbours and frequencies."""

from __future__ import annotations

import cmath
import math
from cmath import exp, pi
from math import cos, hypot

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bigain.operators.frequency import SCORES, band_of_bin, laplacian, radial_power, score
from bigain.operators.grid import Grid

grids = st.builds(Grid, st.integers(1, 33), st.integers(1, 17))
small_grids = st.builds(Grid, st.integers(1, 6), st.integers(1, 5))
seeds = st.integers(0, 2**31)
batches = st.integers(1, 3)

Image = list[list[list[float]]]  # rows of columns of channels


def tokens(seed: int, batch: int, grid: Grid, channels: int = 3) -> Tensor:
    return torch.randn(batch, grid.tokens, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def image_of(x: Tensor, grid: Grid) -> Image:
    return x.view(grid.height, grid.width, -1).tolist()  # type: ignore[no-any-return]


def neighbours(image: Image, y: int, x: int) -> list[list[float]]:
    last_y, last_x = len(image) - 1, len(image[0]) - 1
    places = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return [image[min(max(row, 0), last_y)][min(max(column, 0), last_x)] for row, column in places]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def score_by_loop(image: Image, kind: str) -> list[float]:
    flat = [token for row in image for token in row]
    mean = [sum(values) / len(flat) for values in zip(*flat, strict=True)]
    scores = []
    for y, row in enumerate(image):
        for x, token in enumerate(row):
            around = neighbours(image, y, x)
            stencil = [sum(other[c] for other in around) - 4 * value for c, value in enumerate(token)]
            average = sum(token) / len(token)
            scores.append(
                {
                    "laplacian_l1": sum(map(abs, stencil)),
                    "laplacian_l2": math.hypot(*stencil),
                    "mean_deviation": math.dist(token, mean),
                    "l1_norm": sum(map(abs, token)),
                    "l2_norm": math.hypot(*token),
                    "channel_variance": sum((value - average) ** 2 for value in token) / len(token),
                    "cosine_neighbours": 1 - sum(cosine(token, other) for other in around) / 4,
                    "cosine_mean": 1 - cosine(token, mean),
                }[kind]
            )
    return scores


def high_pass_by_loop(image: Image, kind: str) -> list[float]:
    """Every frequency on its own: project on its wave, keep it if it is above half of Nyquist, sum what is kept."""
    values = np.array(image)
    height, width = values.shape[:2]
    y, x = np.mgrid[:height, :width]
    kept = np.zeros_like(values, dtype=complex)
    for v in range(height):
        for u in range(width):
            if kind == "spectral_dct":
                radius = math.hypot(v / height, u / width)
                norm = math.sqrt((1 if v == 0 else 2) / height) * math.sqrt((1 if u == 0 else 2) / width)
                wave = norm * np.cos(math.pi * (y + 0.5) * v / height) * np.cos(math.pi * (x + 0.5) * u / width)
            else:
                radius = math.hypot(min(v, height - v) / height, min(u, width - u) / width) / 0.5
                wave = np.exp(cmath.pi * 2j * (v * y / height + u * x / width)) / math.sqrt(height * width)
            if radius > 0.5 + 1e-12:  # the bins at exactly half of Nyquist, up to rounding, do not count
                kept += wave[..., None] * np.sum(wave.conj()[..., None] * values, axis=(0, 1))
    return [float(value) for value in np.linalg.norm(kept.real, axis=2).ravel()]


@pytest.mark.parametrize("kind", [kind for kind in SCORES if not kind.startswith("spectral")])
@settings(max_examples=8, deadline=None)
@given(seeds, batches, grids)
def test_score_agrees_with_a_loop(kind: str, seed: int, batch: int, grid: Grid) -> None:
    x = tokens(seed, batch, grid)
    expected = torch.tensor([score_by_loop(image_of(row, grid), kind) for row in x], dtype=torch.float64)
    torch.testing.assert_close(score(x, grid, kind), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["spectral_dft", "spectral_dct"])
@settings(max_examples=12, deadline=None)
@given(seeds, batches, small_grids)
def test_high_pass_agrees_with_a_sum_over_waves(kind: str, seed: int, batch: int, grid: Grid) -> None:
    x = tokens(seed, batch, grid)
    expected = torch.tensor([high_pass_by_loop(image_of(row, grid), kind) for row in x], dtype=torch.float64)
    torch.testing.assert_close(score(x, grid, kind), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["spectral_dft", "spectral_dct"])
@pytest.mark.parametrize("grid", [Grid(33, 17), Grid(10, 10), Grid(16, 12), Grid(1, 17)])
def test_high_pass_agrees_with_a_sum_over_waves_on_larger_grids(kind: str, grid: Grid) -> None:
    x = tokens(4, 1, grid, 2)
    expected = torch.tensor([high_pass_by_loop(image_of(x[0], grid), kind)], dtype=torch.float64)
    torch.testing.assert_close(score(x, grid, kind), expected, rtol=1e-9, atol=1e-9)


def test_a_constant_image_has_no_detail_also_at_its_border() -> None:
    x = torch.full((1, 35, 4), 0.1)
    for kind in ("laplacian_l1", "laplacian_l2"):
        assert torch.equal(score(x, Grid(5, 7), kind), torch.zeros(1, 35))
    for kind in set(SCORES) - {"laplacian_l1", "laplacian_l2", "l1_norm", "l2_norm"}:
        torch.testing.assert_close(score(x, Grid(5, 7), kind), torch.zeros(1, 35), rtol=0.0, atol=1e-6)


def test_a_single_bright_token_is_where_the_detail_is() -> None:
    grid = Grid(6, 5)
    x = torch.ones(1, 30, 4)
    x[0, 13] = torch.tensor([5.0, -5.0, 5.0, -5.0])
    for kind in SCORES:
        assert score(x, grid, kind).argmax().item() == 13, kind


def test_the_laplacian_leaves_its_input_alone() -> None:
    image = tokens(0, 1, Grid(4, 3)).view(1, 4, 3, 3)
    before = image.clone()
    laplacian(image)
    assert torch.equal(image, before)


@pytest.mark.parametrize("kind", SCORES)
def test_zero_tokens_give_finite_scores(kind: str) -> None:
    assert score(torch.zeros(2, 12, 3), Grid(3, 4), kind).isfinite().all()


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_scores_are_computed_in_at_least_float32(kind: str, dtype: torch.dtype) -> None:
    x = tokens(5, 2, Grid(6, 5)).to(dtype)
    result = score(x, Grid(6, 5), kind)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(result.double(), score(x.double(), Grid(6, 5), kind), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SCORES)
def test_batch_agrees_with_its_rows_and_repeats_its_bits(kind: str) -> None:
    x, grid = tokens(6, 3, Grid(7, 9)).float(), Grid(7, 9)
    scores = score(x, grid, kind)
    assert torch.equal(scores, score(x, grid, kind))
    for row in range(3):
        torch.testing.assert_close(scores[row : row + 1], score(x[row : row + 1], grid, kind), rtol=1e-5, atol=1e-6)


def test_bad_inputs_are_named() -> None:
    with pytest.raises(ValueError, match=r"score must be one of laplacian_l1, .*cosine_mean, not 'sobel'"):
        score(torch.zeros(1, 12, 3), Grid(3, 4), "sobel")
    with pytest.raises(ValueError, match=r"3 x 4 = 12 tokens, not \(1, 13, 3\)"):
        score(torch.zeros(1, 13, 3), Grid(3, 4), "l1_norm")


nine_by_nine = st.builds(Grid, height=st.integers(1, 9), width=st.integers(1, 9))


def random_tokens(batch: int, grid: Grid, channels: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, grid.tokens, channels, generator=generator, dtype=torch.float64)


def slow_radial_power(x: torch.Tensor, grid: Grid, bands: int) -> torch.Tensor:
    height, width = grid.height, grid.width
    power = torch.zeros(x.shape[0], bands, dtype=torch.float64)
    for b in range(x.shape[0]):
        for u in range(height):
            for v in range(width):
                fy = (u if u < (height + 1) // 2 else u - height) / height * 2  # in units of Nyquist
                fx = (v if v < (width + 1) // 2 else v - width) / width * 2
                band = min(int(hypot(fy, fx) * bands), bands - 1)
                for c in range(x.shape[2]):
                    coefficient = sum(
                        float(x[b, i * width + j, c]) * exp(-2j * pi * (u * i / height + v * j / width))
                        for i in range(height)
                        for j in range(width)
                    )
                    power[b, band] += abs(coefficient) ** 2 / (height * width) ** 2 / x.shape[2]
    return power


@settings(max_examples=12, deadline=None)
@given(st.builds(Grid, height=st.integers(1, 5), width=st.integers(1, 5)), st.integers(1, 4), st.integers(0, 9))
def test_radial_power_is_the_dft_summed_bin_by_bin(grid, bands, seed):
    x = random_tokens(2, grid, 2, seed)
    torch.testing.assert_close(radial_power(x, grid, bands), slow_radial_power(x, grid, bands), rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(nine_by_nine, st.integers(1, 6), st.integers(0, 9))
def test_bands_sum_to_the_mean_square(grid, bands, seed):
    x = random_tokens(3, grid, 4, seed)
    power = radial_power(x, grid, bands)
    torch.testing.assert_close(power.sum(dim=1), x.square().mean(dim=(1, 2)))
    assert (power >= 0).all()


def test_a_wave_lies_in_its_band_and_a_constant_in_the_lowest():
    grid = Grid(16, 16)
    for cycles, band in ((0, 0), (1, 0), (3, 1), (5, 2), (7, 3), (8, 3)):
        wave = torch.tensor([cos(2 * pi * cycles * j / 16) for _ in range(16) for j in range(16)])
        power = radial_power(wave.view(1, 256, 1), grid, 4)[0]
        assert power.argmax() == band
        assert power[band] == pytest.approx(float(power.sum()), rel=1e-5)


def test_rows_and_columns_are_not_exchanged():
    grid = Grid(4, 8)
    stripes = torch.tensor([1.0, -1.0]).repeat(16).view(1, 32, 1)  # alternates along each row: Nyquist
    assert radial_power(stripes, grid, 8)[0, 7] == pytest.approx(1.0)
    slow = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat_interleave(8).view(1, 32, 1)  # one cycle down the 4 rows
    assert radial_power(slow, grid, 8)[0, 4] == pytest.approx(1.0)


def test_low_precision_is_reduced_in_float32():
    grid = Grid(6, 5)
    x = random_tokens(2, grid, 3, 0).to(torch.bfloat16)
    power = radial_power(x, grid, 3)
    assert power.dtype == torch.float32
    torch.testing.assert_close(power, radial_power(x.double(), grid, 3).float())


def test_bad_input_is_refused():
    grid = Grid(4, 4)
    with pytest.raises(ValueError, match="bands must be at least 1, not 0"):
        band_of_bin(grid, 0)
    with pytest.raises(ValueError, match="N = 4 x 4 = 16 tokens"):
        radial_power(torch.zeros(1, 15, 2), grid, 3)
