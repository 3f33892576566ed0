"""What an allocation is to reach; nothing here imports PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bigain.run.settings import Group, setting


@dataclass(frozen=True, kw_only=True)
class TargetSettings(Group):
    """What an allocation is to save, or may lose: save, speed_up, or lose_at_most and psnr (both, too)."""

    save: float | None = setting(None, "Share of a forward's FLOPs to save, such as 0.25.")
    speed_up: float | None = setting(
        None, "How many times as fast a forward is to be, such as 1.2: time, measured here in batches of --batch-size."
    )
    lose_at_most: float | None = setting(
        None, "Or save as much as costs at most so many points of accuracy, such as 2.", low=0
    )
    psnr: float | None = setting(
        None, "Or save as much as keeps generated images within so many dB of the uncompressed ones, such as 25.", low=0
    )
    contrast: float = setting(
        3.0,
        "Weight of what tells classes apart: the cost is the change of the prediction + this x the change of its "
        "difference between two classes. 0 looks at the prediction only.",
        low=0,
    )
    classify: int = setting(200, "Images to classify at each step of --lose-at-most.", low=1)
    generate: int = setting(64, "Images to generate at each step of --psnr.", low=1)
    ranges: tuple[int, ...] = setting(
        (1,), "Ranges of t in which layers choose apart: how many, or their bounds such as '0 300 700 1000'."
    )
    for_: str = setting(
        "both",
        "What the preset is for, by whose timesteps ranges count: classify, generate or both.",
        choices=("classify", "generate", "both"),
    )
    exact: bool = setting(False, "Measure each candidate in each layer on its own instead of estimating all at once.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.save is not None and not 0 < self.save < 1:
            raise ValueError(f"save must lie between 0 and 1, not {self.save:g}")
        if self.speed_up is not None and not (math.isfinite(self.speed_up) and self.speed_up > 1):
            raise ValueError(f"speed_up must be above 1, not {self.speed_up:g}")

    def check(self) -> None:
        """Raises ValueError unless there is a target, and one that can be kept: see the class."""
        given = self.given
        if len({"loss" if name in ("lose_at_most", "psnr") else name for name in given}) != 1:
            raise ValueError(
                "the target must be one of save (--save 0.25), speed_up (--speed-up 1.2) and lose_at_most or psnr or "
                f"both (--lose-at-most 2, --psnr 25), not {' and '.join(given) or 'none'}"
            )

    @property
    def given(self) -> dict[str, float]:
        """The targets that were asked for, by name."""
        targets = {name: getattr(self, name) for name in ("save", "speed_up", "lose_at_most", "psnr")}
        return {name: value for name, value in targets.items() if value is not None}
