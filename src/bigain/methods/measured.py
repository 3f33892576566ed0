"""Named presets of the models for which they were measured: what each layer takes, from little to much."""

from __future__ import annotations

_RANDOM = "size_aware=true,destinations=random"
_WITH_MLP = f"locations=self_attention/mlp,{_RANDOM}"
_KEYS = "size_aware=true,queries=full,destinations=random"
_BLOCKS = "size_aware=true,features=first"
_BLOCKS_WITH_MLP = f"locations=self_attention/mlp,{_BLOCKS}"

PRESETS: dict[str, dict[str, str]] = {
    "glyphs-dit": {
        "quality": f"quadtree:ratio=0.9,layers=0,{_BLOCKS}+iekvd:factor=2,layers=2"
        f"+quadtree:ratio=0.4,layers=5,{_BLOCKS_WITH_MLP}",
        "balanced": f"quadtree:ratio=0.9,layers=0,{_BLOCKS}+iekvd:factor=2,layers=2/4"
        f"+quadtree:ratio=0.6,layers=5,{_BLOCKS_WITH_MLP}",
        "fast": f"quadtree:ratio=0.9,layers=0,{_BLOCKS}+abm:ratio=0.3,layers=1,{_BLOCKS_WITH_MLP}"
        f"+quadtree:ratio=0.4,layers=2,{_BLOCKS_WITH_MLP}+iekvd:factor=2,layers=4"
        f"+quadtree:ratio=0.5,layers=5,{_BLOCKS_WITH_MLP}",
    },
    "glyphs-sd": {
        "quality": f"tome:ratio=0.8,cell=4x4,layers=1,{_WITH_MLP}+tome:ratio=0.9,cell=4x4,layers=4,{_WITH_MLP}",
        "balanced": f"tome:ratio=0.5,layers=0,{_KEYS}+tome:ratio=0.9,cell=4x4,layers=1/2/4,{_WITH_MLP}"
        f"+tome:ratio=0.5,layers=3,{_WITH_MLP}",
        "fast": f"tome:ratio=0.75,layers=0,{_KEYS}+tome:ratio=0.9,cell=4x4,layers=1/2/3/4,{_WITH_MLP}"
        f"+tome:ratio=0.3,layers=5/6,{_WITH_MLP}",
    },
}
"""By model and name, what ``bigain allocate`` gave each layer on 8 validation images (4 timesteps, seed 1, bfloat16).

Asked to save 20, 28 and 35% of the FLOPs of glyphs-dit, and 7, 14 and 20% of those of glyphs-sd. Quality and balanced
are its choices as it is. Fast of glyphs-dit is one of several that were compared on 200 validation images, with a
contrast weight of 1 and without ToMe, but quadtree instead of block merging in layer 5, where both cost nearly the
same; fast of glyphs-sd is its choice by the change of the prediction alone (a contrast weight of 0).
"""


def preset_text(name: str, model: str) -> str:
    """The spec of a preset.

    Raises:
        ValueError: nothing was measured for the model, or there is no such preset; says what to do.
    """
    if model not in PRESETS:
        raise ValueError(
            f"no preset was measured for {model!r}, only for {', '.join(PRESETS)}: which layers can give what differs "
            f"from model to model. `bigain allocate --model {model} --save 0.2` finds out"
        )
    if name not in PRESETS[model]:
        raise ValueError(f"a preset of {model} is one of {', '.join(PRESETS[model])}, not {name!r}")
    return PRESETS[model][name]
