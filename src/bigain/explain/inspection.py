"""A look inside one forward: the score map of an image, and which of its tokens merge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bigain.backbones import Seen, recorded
from bigain.classify import keyed_prediction, paired_noise
from bigain.diffusion import Denoiser, image_key
from bigain.methods import TokenDownsampling, parse
from bigain.operators.frequency import score
from bigain.operators.grid import Grid, cell_index
from bigain.operators.pooling import nearest_tokens

_DEFAULT_SCORE = "laplacian_l1"


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a method did to one image in one layer.

    Args:
        method: its spec.
        timestep, layer: where.
        layer_name: of the transformer block.
        image, noised: uint8 (S, S, 3); noised is what the model saw (decoded, if it sees latents).
        grid: of the tokens.
        score_name: which score.
        score_used: whether the method goes by it, or it is shown for comparison.
        scores: float32 (height, width), high is detail.
        groups: int64 (tokens,), the group of each token.
        kept: int64 (groups,), the token that stands for each group: its destination, or itself.
        merges: False where only keys and values are pooled, so that every token stays a query.
    """

    method: str
    timestep: int
    layer: int
    layer_name: str
    image: npt.NDArray[np.uint8]
    noised: npt.NDArray[np.uint8]
    grid: Grid
    score_name: str
    score_used: bool
    scores: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]
    merges: bool


def inspect_method(
    denoiser: Denoiser,
    method: str,
    image: Tensor,
    image_id: str,
    *,
    timestep: int,
    condition: str | int,
    layer: int | None = None,
    seed: int = 0,
) -> Inspection:
    """Runs one forward with the classifier's noise of this image and looks at one layer.

    Args:
        denoiser: an open model without compression.
        method: a spec of one method.
        image: float (3, S, S) in [-1, 1].
        image_id: seeds the noise.
        timestep: of the noise, in [0, the model's training timesteps).
        condition: prompt or label that the model is asked with.
        layer: number of the transformer block; None is the first in which the method acts.
        seed: of the noise.

    Raises:
        ValueError: "none" or several methods, a timestep out of range, or a layer in which the method does not act;
            lists those in which it does.
    """
    methods = parse(method)
    if len(methods) != 1:
        raise ValueError(f"method must be one compression method, not {method!r}")
    if not methods[0].leaves_a_spectrum:
        raise ValueError(f"{method!r} makes no groups of tokens that could be drawn: give another method")
    if not 0 <= timestep < denoiser.process.steps:
        raise ValueError(f"timestep must lie in [0, {denoiser.process.steps}), not {timestep}")
    x0 = denoiser.encode(image[None])
    t = torch.tensor([timestep])
    noise = paired_noise(seed, image_id, timestep, x0.shape[1:])[None].to(x0.device)
    x_t = denoiser.process.noise(x0, noise, t)
    conditions = denoiser.conditions([condition])  # type: ignore[arg-type]
    key, first = torch.tensor([image_key(image_id)]), torch.zeros(1, dtype=torch.long)
    seen: dict[int, Seen] = {}  # by layer

    def note(each: Seen) -> None:
        if each.decided:
            seen[each.context.layer] = each

    with recorded(denoiser.model, methods[0], note):
        keyed_prediction(denoiser, x_t, t, conditions, first, key)
    chosen = min(seen) if layer is None else layer
    if chosen not in seen:
        raise ValueError(f"layer must be one in which {method} decides what merges, {sorted(seen)}, not {layer}")
    found, grid = seen[chosen], seen[chosen].context.grid
    score_name = getattr(methods[0], "score", _DEFAULT_SCORE)
    deciding = found.tokens if found.features is None else found.features
    if found.assignment is None:
        assert isinstance(methods[0], TokenDownsampling)
        factor = methods[0].factor
        groups = cell_index(grid, (factor, factor)).numpy()
        kept = nearest_tokens(grid, factor, getattr(methods[0], "nearest", "centre")).numpy()
    else:
        groups, kept = found.assignment.index[0].cpu().numpy(), found.assignment.kept[0].cpu().numpy()
    return Inspection(
        method=method,
        timestep=timestep,
        layer=chosen,
        layer_name=found.name,
        image=_pixels(image),
        noised=_pixels(denoiser.decode(x_t)[0]),
        grid=grid,
        score_name=score_name,
        score_used=methods[0].reads_score,
        scores=score(deciding, grid, score_name)[0].float().cpu().numpy().reshape(grid.height, grid.width),
        groups=groups,
        kept=kept,
        merges=found.assignment is not None,
    )


def _pixels(image: Tensor) -> npt.NDArray[np.uint8]:
    """(3, S, S) in about [-1, 1] to uint8 (S, S, 3)."""
    return ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
