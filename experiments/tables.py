"""Writes the tables of README.md and docs/ from results/*.json, between their markers.

python -m experiments.tables
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, replace
from pathlib import Path

from bigain.methods import parse
from bigain.report import bench
from bigain.report.style import label, markdown_table
from bigain.report.table import Line, accuracy_cell, caption, cell, change_cell, lines_of
from bigain.run.files import write_whole
from bigain.run.results import Comparison, Gain, Results, Timings, read_results
from bigain.zoo.presets import text_of
from experiments import classifier, offers, switches

ROOT = Path(__file__).parents[1]
README_MODEL = "glyphs-dit-64"
README_ROWS = ("none", "iekvd-2", "avgpool-2", f"{README_MODEL}/balanced")
PAGES = ("glyphs-dit-64", "glyphs-dit", "glyphs-sd")
JOINT = ("glyphs-flux", "glyphs-video")  # of docs/joint-attention.md
JOINT_ALIKE = tuple(f"{name}-alike" for name in JOINT)  # one method in all layers and at every t, on fewer images
ABLATIONS = ("ablation-glyphs-dit-64",)  # of docs/results.md
ALLOCATION = "ablation-allocation"
CHOICES = (  # what it compares, in its order, with the speed that was asked for
    "layers, 1.12×",
    "layers and ranges of t, 1.12×",
    "layers, 1.22×, estimated",
    "layers, 1.22×, `--exact`",
)
COMPARED = {CHOICES[1]: CHOICES[0], CHOICES[3]: CHOICES[2]}
CLASSIFIERS = ("classifier-glyphs-dit", "classifier-glyphs-sd", "classifier-glyphs-dit-64", "many-classes")
BENCHES = {
    "speed": ("bench-glyphs-dit-64", "compiled-float32", "compiled-bfloat16"),
    "processor": ("bench-sd-2.1-512", "bench-sd-2.1-768", "bench-sd-2.1-1024"),
}
SWITCHES = "switches-sd-2.1-512"
_SLACK = 0.005  # of the FLOPs of no compression: what counts as saving the same


def table(lines: Iterable[Line]) -> str:
    """Accuracy, FID, PSNR, FLOPs and speed of methods, as Markdown."""
    rows = [
        [
            *_outcome(line),
            cell("{:.1f}", line.row.psnr),
            cell("{:+.1f}%", line.row.flops_change, scale=100),
            line.speed,
        ]
        for line in lines
    ]
    return markdown_table(["method", "accuracy, %", "FID", "PSNR, dB", "FLOPs", "speed"], rows)


def joint(results: Results, times: Timings | None) -> str:
    """Accuracy, its change, recognised images, PSNR, FLOPs and speed, and the caption; images are too few for a FID."""
    rows = [
        [
            str(label(line.row.method)),
            accuracy_cell(line),
            change_cell(line),
            _share(line.row.recognised, line.row.recognised_low, line.row.recognised_high),
            cell("{:.1f}", line.row.psnr),
            cell("{:+.1f}%", line.row.flops_change, scale=100),
            line.speed,
        ]
        for line in lines_of(results, times)
    ]
    headings = ["method", "accuracy, %", "change, points", "recognised, %", "PSNR, dB", "FLOPs", "speed"]
    return f"{markdown_table(headings, rows)}\n\n{caption(replace(results, reference=None), times)}"


def _share(*shares: float | None) -> str:
    """A share in percent, with its interval."""
    return "" if None in shares else "{:.1f} ({:.1f}–{:.1f})".format(*(100 * (share or 0) for share in shares))


def readme(model: str = README_MODEL) -> str:
    """The README's table: a few methods of one model, what a forward takes per image, and the speed in both dtypes."""
    results, times = read_results(ROOT / "results" / f"{model}.json")
    other, other_times = read_results(ROOT / "results" / f"{model}-float32.json")
    if times is None:
        raise ValueError("results of the README must have times")
    shown = [parse(text_of(text)).text for text in README_ROWS]
    lines = {line.row.method: line for line in lines_of(results, times)}
    speeds = {line.row.method: line.speed for line in lines_of(other, other_times)}
    batch = times.environment["sample"][0]
    rows = [
        [*_outcome(line), "" if line.time is None else f"{line.time.median / batch:.1f}", line.speed, speeds[method]]
        for method, line in ((method, lines[method]) for method in shown)
    ]
    return markdown_table(["method", "accuracy, %", "FID", "ms", "speed", "in float32"], rows)


def _outcome(line: Line) -> list[str]:
    return [str(label(line.row.method)), accuracy_cell(line), cell("{:.2f}", line.row.fid)]


def page(results: Results, times: Timings | None) -> str:
    """A folded table of all methods of a run, its caption, and what its comparisons come to."""
    summary = f"<details><summary>{len(results.rows)} methods</summary>"
    parts = [*verdicts(results), summary, table(lines_of(results, times)), "</details>", caption(results, times)]
    return "\n\n".join(parts)


def verdicts(results: Results) -> list[str]:
    """Of each method that is compared with the others: against how many that save no more it is surely better."""
    saved = {row.method: -row.flops_change for row in results.rows if row.flops_change is not None}
    texts = []
    for method in dict.fromkeys(one.method for one in results.comparisons):
        rivals = [
            one for one in results.comparisons if one.method == method and saved[one.other] <= saved[method] + _SLACK
        ]
        wins = [
            f"{sum(_is_certain(one, measure) for one in rivals)} in {name}"
            for measure, name in (("accuracy", "accuracy"), ("fid", "FID"), ("psnr", "PSNR"))
        ]
        texts.append(
            f"{label(method)}, of {len(rivals)} settings that save no more FLOPs: better than {', '.join(wins)}, each "
            f"by the 95% interval of the paired difference."
        )
    return texts


def _is_certain(comparison: Comparison, measure: str) -> bool:
    gain = comparison.gains[measure]
    return gain is not None and gain.is_certain


def allocation() -> str:
    """What each choice of a model's layers is worth, and how two differ that were asked for the same speed."""
    results, times = read_results(ROOT / "results" / f"{ALLOCATION}.json")
    plain, *lines = lines_of(results, times)
    names = dict(zip((line.row.method for line in lines), CHOICES, strict=True))
    rows = [["no compression", *_outcome(plain)[1:], "", ""]]
    rows += [[names[line.row.method], *_outcome(line)[1:], cell("{:.1f}", line.row.psnr), line.speed] for line in lines]
    better = [
        [names[one.method], names[one.other], _gain(one.accuracy, scale=100), _gain(one.fid), _gain(one.psnr)]
        for one in results.comparisons
        if COMPARED.get(names[one.method]) == names[one.other]
    ]
    return "\n\n".join(
        (
            markdown_table(["choice, speed asked for", "accuracy, %", "FID", "PSNR, dB", "speed"], rows),
            markdown_table(["choice", "than", "better in accuracy, points", "in FID", "in PSNR, dB"], better),
            caption(results, times),
        )
    )


def _gain(gain: Gain | None, scale: int = 1) -> str:
    return "" if gain is None else "{:+.2f} ({:+.2f} to {:+.2f})".format(*(scale * value for value in astuple(gain)))


def put_between(path: Path, name: str, content: str) -> None:
    """Puts ``content`` between the markers ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->`` of a file.

    Raises:
        ValueError: the file does not have each marker once, in order.
    """
    first, last = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, begin, rest = path.read_text(encoding="utf-8").partition(first)
    _, end, tail = rest.partition(last)
    if not begin or not end or any(marker in head + tail for marker in (first, last)):
        raise ValueError(f"{path} must have the line {first} and, below it, the line {last}, each once")
    write_whole(path, f"{head}{first}\n\n{content.strip()}\n\n{last}{tail}")


def timings(path: Path) -> str:
    """The table of `bigain bench`, and what was timed."""
    content, rows = bench.read(path)
    return f"{bench.markdown(rows)}\n\n{bench.caption(content)}"


def main() -> None:
    put_between(ROOT / "README.md", "readme", readme())
    put_between(ROOT / "docs" / "allocate.md", ALLOCATION, allocation())
    for name in (*PAGES, *ABLATIONS):
        put_between(ROOT / "docs" / "results.md", name, page(*read_results(ROOT / "results" / f"{name}.json")))
    for name in (*JOINT, *JOINT_ALIKE):
        put_between(ROOT / "docs" / "joint-attention.md", name, joint(*read_results(ROOT / "results" / f"{name}.json")))
    for name in JOINT:
        path = ROOT / "results" / f"offers-{name}.json"
        put_between(ROOT / "docs" / "joint-attention.md", f"layers-{name}", offers.table(path))
        put_between(ROOT / "docs" / "joint-attention.md", f"alike-{name}", offers.alike(path, name))
    for name in CLASSIFIERS:
        put_between(ROOT / "docs" / "classification.md", name, classifier.table(ROOT / "results" / f"{name}.json"))
    for document, names in BENCHES.items():
        for name in names:
            put_between(ROOT / "docs" / f"{document}.md", name, timings(ROOT / "results" / f"{name}.json"))
    put_between(ROOT / "docs" / "speed.md", SWITCHES, switches.table(ROOT / "results" / f"{SWITCHES}.json"))


if __name__ == "__main__":
    main()
