"""What do bfloat16, channels-last and torch.compile bring, without and with a method?

python -m experiments.switches FILE

A U-Net of Stable Diffusion's shape, with random weights; every combination in turn within each round of one run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bigain.backbones import apply
from bigain.backbones.untrained import Untrained, untrained
from bigain.methods import parse
from bigain.report.style import label, markdown_table
from bigain.run.bench import Interval, twin
from bigain.run.cost import environment, interleaved
from bigain.run.files import read_json, write_json
from bigain.zoo.published import published

FORMAT = "bigain switches 1"
METHOD = "quadtree:ratio=0.75,levels=1/2/3,locations=self_attention/mlp"


@dataclass(frozen=True)
class Switches:
    """How a model runs."""

    dtype: str = "float32"
    channels_last: bool = False
    compile: bool = False

    @property
    def text(self) -> str:
        """Those that are on."""
        names = {"bfloat16": self.dtype == "bfloat16", "channels-last": self.channels_last, "compile": self.compile}
        return " + ".join(name for name, on in names.items() if on) or "none (float32, eager)"


TIMED = (
    Switches(),
    Switches(channels_last=True),
    Switches(compile=True),
    Switches("bfloat16"),
    Switches("bfloat16", channels_last=True),
    Switches("bfloat16", compile=True),
    Switches("bfloat16", channels_last=True, compile=True),
)


def measure(model: str, size: int, batch_size: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a forward in each round, by switches and method, and what was timed."""
    visits: dict[tuple[Switches, str], tuple[Any, Callable[[], object]]] = {}
    kept: dict[Switches, Untrained] = {}  # compiled or not, the weights are the same
    for switches in TIMED:
        eager = replace(switches, compile=False)
        if eager not in kept:
            kept[eager] = _model(eager, model, size, batch_size)
        for method in ("none", METHOD):
            visits[switches, method] = (nullcontext, _forward(kept[eager], method, switches.compile))
    count = rounds * len(visits)
    done = iter(range(1, count + 1))
    times = interleaved(
        visits, rounds, torch.device("cpu"), lambda key: print(next(done), "of", count, key[0].text, file=sys.stderr)
    )
    where = environment(torch.device("cpu"), {"batch_size": batch_size, "rounds": rounds})
    rows = [{**asdict(switches), "method": method, "ms": own} for (switches, method), own in times.items()]
    return {"model": model, "size": size, "environment": where, "rows": rows}


def _model(switches: Switches, model: str, size: int, batch_size: int) -> Untrained:
    made = untrained(published(model), (size, size), batch_size=batch_size, dtype=getattr(torch, switches.dtype))
    if switches.channels_last:
        made.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made


def _forward(made: Untrained, method: str, compiled: bool) -> Callable[[], object]:
    own = twin(made.model)
    if method != "none":
        apply(own, parse(method))
    return partial(made.forward, torch.compile(own) if compiled else own)


def table(path: Path) -> str:
    """Markdown: a row for each combination, with seconds and the speed over neither switch nor method."""
    content = read_json(path, FORMAT, "timings of switches", dict)
    times: Mapping[tuple[Switches, str], list[float]] = {
        (Switches(**{name: row[name] for name in ("dtype", "channels_last", "compile")}), row["method"]): row["ms"]
        for row in content["rows"]
    }
    first = times[Switches(), "none"]
    rows = []
    for switches in dict.fromkeys(switches for switches, _ in times):
        cells = [switches.text]
        for method in ("none", METHOD):
            own = times[switches, method]
            gain = Interval.of([one / other for one, other in zip(first, own, strict=True)])
            spread = f"{gain.median:.2f} ({gain.low:.2f}–{gain.high:.2f})" if own is not first else "–"
            cells += [f"{Interval.of(own).median / 1000:.2f}", spread]
        rows.append(cells)
    where = content["environment"]
    caption = (
        f"Forwards of {content['model']} with random weights at {content['size']} × {content['size']} px, batches of "
        f"{where['batch_size']}; the method is {label(METHOD)}. Speed is over the first row without it. Medians of "
        f"{where['rounds']} interleaved rounds, with 95% intervals. {where['device_name']}, {where['threads']} CPU "
        f"threads, torch {where['torch']}."
    )
    headings = ["turned on", "s", "speed", "s with the method", "speed with it"]
    return f"{markdown_table(headings, rows)}\n\n{caption}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="JSON to write")
    parser.add_argument("--model", default="SD-2.1")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    write_json(args.file, FORMAT, measure(args.model, args.size, args.batch_size, args.rounds))
    print(table(args.file))


if __name__ == "__main__":
    main()
