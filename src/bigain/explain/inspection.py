"""A look inside one forward: the score map of an image, and which of its tokens merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bigain.backbones import Seen, recorded
from bigain.classify import noised, predictions
from bigain.diffusion import Denoiser
from bigain.images import to_uint8
from bigain.methods import Compression, TokenDownsampling
from bigain.operators.frequency import score
from bigain.operators.grid import Grid, cell_index
from bigain.operators.pooling import nearest_tokens


@dataclass(frozen=True, eq=False)
class Grouping:
    """Which tokens of an image go together in one layer of one forward."""

    layer: int
    layer_name: str
    grid: Grid  # of the tokens
    groups: npt.NDArray[np.int64]  # (tokens,), the group of each token
    kept: npt.NDArray[np.int64]  # (groups,), the token that stands for each group: its destination, or itself
    merges: bool  # False where only keys and values are pooled, so that every token stays a query

    @classmethod
    def of(cls, seen: Seen, row: int = 0) -> Grouping:
        """Of one row of a batch."""
        grid, layer = seen.context.grid, seen.context.layer
        if seen.assignment is not None:
            groups, kept = seen.assignment.index[row], seen.assignment.kept[row]
        else:
            method = seen.method
            assert isinstance(method, TokenDownsampling)
            place: Literal["centre", "first"] = getattr(method, "nearest", "centre")
            groups, kept = cell_index(grid, method.window), nearest_tokens(grid, method.factor, place)
        merges = seen.assignment is not None
        return cls(layer, seen.name, grid, groups.cpu().numpy(), kept.cpu().numpy(), merges)


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a method did to one image in one layer."""

    method: str  # its spec
    timestep: int
    image: npt.NDArray[np.uint8]  # (S, S, 3)
    noised: npt.NDArray[np.uint8]  # (S, S, 3) what the model saw (decoded, if it sees latents)
    grouping: Grouping
    score_name: str
    score_used: bool  # whether the method goes by the score, or it is shown for comparison
    scores: npt.NDArray[np.float32]  # (height, width), high is detail


def inspect_method(
    denoiser: Denoiser,
    methods: Compression | str,
    image: Tensor,
    image_id: str,
    *,
    timestep: int,
    condition: str | int,
    layer: int | None = None,
) -> Inspection:
    """Runs one forward with the classifier's noise of this image and looks at one layer.

    ValueError for "none" or several methods, a timestep out of range, or a layer in which the method does not act.

    Args:
        denoiser, methods: an open model without compression, and one method.
        image, image_id: float (3, S, S) in [-1, 1], and the name on which the classifier's noise (of seed 0) depends.
        timestep: of the noise, in [0, the model's training timesteps).
        condition: prompt or label that the model is asked with.
        layer: number of the transformer block; None is the first in which the method acts.
    """
    methods = Compression.of(methods)
    if len(methods) != 1 or not methods[0].leaves_a_spectrum:
        raise ValueError(f"method must be one compression method that makes groups of tokens, not {methods.text!r}")
    method = methods[0]
    if not 0 <= timestep < denoiser.process.steps:
        raise ValueError(f"timestep must lie in [0, {denoiser.process.steps}), not {timestep}")
    if not method.acts_at(timestep):
        raise ValueError(f"timestep must lie in the range in which {methods.text} acts, not {timestep}")
    t = torch.tensor([timestep])
    x_t, _ = noised(denoiser, denoiser.encode(image[None]), [image_id], t, 0)
    conditions = denoiser.conditions([condition])  # type: ignore[arg-type]
    decisions: dict[int, Seen] = {}  # by layer

    def note(seen: Seen) -> None:
        if seen.decided:
            decisions[seen.context.layer] = seen

    with recorded(denoiser.model, method, note):
        predictions(denoiser, x_t, [image_id], t, conditions, torch.zeros(1, dtype=torch.long), 0)
    chosen = min(decisions) if layer is None else layer
    if chosen not in decisions:
        raise ValueError(
            f"layer must be one in which {methods.text} decides what merges, {sorted(decisions)}, not {layer}"
        )
    seen = decisions[chosen]
    grid = seen.context.grid
    score_name = getattr(method, "score", "laplacian_l1")
    scores = score(seen.tokens if seen.features is None else seen.features, grid, score_name)[0]
    return Inspection(
        method=methods.text,
        timestep=timestep,
        image=to_uint8(image[None])[0],
        noised=to_uint8(denoiser.decode(x_t))[0],
        grouping=Grouping.of(seen),
        score_name=score_name,
        score_used=method.reads_score,
        scores=scores.float().cpu().numpy().reshape(grid.height, grid.width),
    )
