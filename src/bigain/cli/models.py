"""``bigain models``: which models are supported, and what each can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bigain.cli import options

if TYPE_CHECKING:
    from rich.table import Table

_NO = "–"


def models() -> None:
    """Lists the models that are supported, what each can do, and what is refused.

    In all of them keys and values are pooled (avgpool, todo, iekvd) or merged (any merging method, with queries=full).
    Tokens merge around attentions and MLPs, or (locations=mlp or block) around MLPs and whole blocks.

    [bold]Examples[/]

      bigain models
    """
    screen = options.console()
    screen.print(_supported())
    screen.print(_refused())
    screen.print("What a model and a size can win: bigain bound MODEL", highlight=False)


def _supported() -> Table:
    from rich import box
    from rich.table import Table

    from bigain.zoo.supported import SUPPORTED

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("models", "class", "attention", "tokens merge around"):
        table.add_column(heading, overflow="fold")
    for heading in ("classify, generate", "tested on weights"):
        table.add_column(heading, overflow="fold")
    for one in SUPPORTED:
        around = "attentions, MLPs" if one.attention == "self" else "MLPs, blocks"
        pipelines = " ".join(name.removesuffix("Pipeline") for name in one.pipelines) or _NO
        tested = "trained" if one.trained else "random"
        table.add_row(one.models, one.network, one.attention, around, pipelines, tested)
    return table


def _refused() -> Table:
    from rich import box
    from rich.table import Table

    from bigain.zoo.supported import REFUSED

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("refused", overflow="fold")
    table.add_column("why", overflow="fold")
    for one in REFUSED:
        table.add_row(one.what, one.why)
    return table
