"""Keys and values from the tokens of the highest, or the lowest, frequency alone: an ablation of BiGain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from bigain.methods.base import Context, TokenDownsampling, check_choice
from bigain.operators.frequency import SCORES, score
from bigain.operators.grid import cell_count
from bigain.operators.pooling import band_select


@dataclass(frozen=True, kw_only=True)
class FrequencySelection(TokenDownsampling):
    """Keys and values from the tokens with most, or least, detail: table 12 of BiGain (arXiv 2603.12240).

    As many tokens are kept as windows of ``factor`` x ``factor`` would leave; the others are not seen by anyone. An
    ablation, which shows that neither detail nor smoothness alone will do.

    Args:
        keep: the tokens of "high" or of "low" score.
        score: token score, one of `bigain.operators.frequency.SCORES`; high is detail.
    """

    name: ClassVar[str] = "freqsel"

    keep: Literal["high", "low"] = "high"
    score: str = "laplacian_l1"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("keep", self.keep, ("high", "low"))
        check_choice("score", self.score, SCORES)

    def pool(self, x: Tensor, context: Context) -> Tensor:
        scores = score(x, context.grid, self.score)
        count = cell_count(context.grid, (self.factor, self.factor))
        return band_select(x, scores, count, highest=self.keep == "high")
