"""The three tabs: what stands in them, and what happens when something is pressed."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from bigain.data.glyphs import CLASSES, Glyphs
from bigain.data.prompts import LETTER
from bigain.images import Pixels, read_image
from bigain.report import charts
from bigain.report.explain import draw_grouping
from bigain.run.settings import SamplingSettings
from bigain.ui import choose, fragments
from bigain.ui.classify import ELIMINATIONS, Verdict, classify
from bigain.ui.compress import Comparison, compare
from bigain.ui.models import Models, Opened, chosen, merges, pools
from bigain.ui.worker import Worker

_MENDABLE = (ValueError, OSError, ImportError, FloatingPointError, MemoryError)
_SHOWN = 320  # pixels of a side at least
_WIDTH = 640  # of a chart, which scales
_PLAIN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_QUEUED: dict[str, Any] = _PLAIN | {"concurrency_id": "model", "concurrency_limit": 8}  # who wait for the worker

Fields = list[dict[str, Any]]
Tab = tuple[Sequence[Any], Callable[[Opened], Fields]]
"""Components, and the properties that they have for a model."""


@dataclass(frozen=True)
class Shop:
    """What the tabs share: the models, the thread that works with them, and the field that says which is meant."""

    models: Models
    worker: Worker
    model: gr.Dropdown
    first: Opened  # that the page begins with

    def opened(self, name: str) -> Opened:
        """A model, open: at once where it is, else by the worker."""
        return self.models.open.get(name) or self.worker.run(lambda: self.models[name])


def told(handler: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
    """A handler whose errors that a user can mend are said on the page."""

    @wraps(handler)
    def saying(*values: Any) -> Iterator[Any]:
        try:
            yield from handler(*values)
        except _MENDABLE as error:
            raise gr.Error(str(error) or type(error).__name__, print_exception=False) from error

    return saying


@dataclass(frozen=True)
class MethodFields:
    """Which method, how much, and where."""

    method: gr.Dropdown
    ratio: gr.Slider
    factor: gr.Radio
    layers: gr.Dropdown

    @classmethod
    def built(cls, opened: Opened) -> MethodFields:
        """In the row or column that is open, with what a model offers."""
        method, ratio, factor, layers = cls.of(opened)
        fields = cls(
            gr.Dropdown(label="Method", **method),
            gr.Slider(0.1, 0.9, 0.5, step=0.05, label="Strength: share of the tokens that merge", **ratio),
            gr.Radio([2, 3, 4], value=2, label="Strength: so many times fewer rows and columns of keys", **factor),
            gr.Dropdown(label="Transformer blocks (none: the method's own)", multiselect=True, type="index", **layers),
        )
        seen = [fields.ratio, fields.factor, fields.layers]
        fields.method.change(lambda name: [gr.update(**one) for one in _strength(name)], fields.method, seen, **_PLAIN)
        return fields

    def __iter__(self) -> Iterator[Any]:
        return iter((self.method, self.ratio, self.factor, self.layers))

    @staticmethod
    def of(opened: Opened) -> Fields:
        """The properties of the four for a model."""
        methods = opened.methods
        first = methods[0][1]
        ratio, factor, layers = _strength(first)
        names = [f"{number} {name}" for number, name in enumerate(opened.layers)]
        return [{"choices": methods, "value": first}, ratio, factor, layers | {"choices": names, "value": []}]


def _strength(method: str) -> Fields:
    """Which of the fields after the first are seen."""
    return [{"visible": seen} for seen in (merges(method), pools(method), merges(method) or pools(method))]


def compress_tab(shop: Shop) -> Tab:
    """Uncompressed beside compressed, from the same noise."""

    def offered(opened: Opened) -> Fields:
        classes = [(name, number) for number, name in enumerate(opened.classes)]
        return [
            {"visible": not classes, "value": "" if classes else LETTER.format("A")},
            {"visible": bool(classes), "choices": classes, "value": 0 if classes else None},
            *MethodFields.of(opened),
            {"value": opened.denoiser.usual_guidance},
        ]

    first = offered(shop.first)
    result = gr.State()
    with gr.Row():
        with gr.Column(scale=1):
            prompt = gr.Textbox(label="Prompt", lines=2, elem_id="compress-prompt", **first[0])
            label = gr.Dropdown(label="Class", **first[1])
            fields = MethodFields.built(shop.first)
            with gr.Accordion("Sampling", open=False):
                steps = gr.Slider(1, 100, 20, step=1, label="Steps", elem_id="compress-steps")
                guidance = gr.Slider(1, 15, step=0.5, label="Guidance (1: none)", **first[-1])
                seed = gr.Number(0, label="Seed of the noise", precision=0, minimum=0)
            start, stop = _buttons("Compress")
        with gr.Column(scale=2):
            status = gr.HTML(elem_id="compress-status")
            with gr.Row():
                plain = _picture("Without compression")
                compressed = _picture("With the method")
            with gr.Row():
                step = gr.Slider(1, 20, 1, step=1, label="Step", elem_id="compress-step")
                layer = gr.Dropdown(label="Transformer block", elem_id="compress-layer")
            gr.Markdown("### Tokens that go together, over the compressed image")
            groups = _picture("Tokens that go together", show_label=False)

    @told
    def run(name: str, prompt: str, label: int | None, *rest: Any) -> Iterator[Any]:
        *choice, steps, guidance, seed = rest
        settings = SamplingSettings(steps=int(steps), guidance=float(guidance))
        opened = shop.opened(name)
        methods, condition = chosen(*choice), (label or 0) if opened.classes else prompt
        sampling = settings.of(opened.denoiser, int(seed or 0), 1)
        yield None, "", None, None, gr.skip(), gr.skip(), None

        def work(tell: Callable[[Comparison], None]) -> None:
            compare(opened, condition, methods, sampling, tell)

        shown: list[Pixels | None] = [None, None]
        for known in shop.worker.reports(work):
            now = [known.plain.image, known.compressed.image]
            fresh = [gr.skip() if new is old else _enlarged(new) for new, old in zip(now, shown, strict=True)]
            yield gr.skip(), fragments.comparison(known), *fresh, *[gr.skip()] * 3
            shown = now
        layer = known.layers[0] if known.layers else None
        where = gr.update(maximum=known.steps, value=known.steps)
        which = gr.update(choices=list(known.layers), value=layer)
        yield known, *[gr.skip()] * 3, where, which, _grouped(known, known.steps, layer)

    given = [shop.model, prompt, label, *fields, steps, guidance, seed]
    running = start.click(run, given, [result, status, plain, compressed, step, layer, groups], **_QUEUED)
    _stops(stop, running, status)
    for one in (step, layer):
        one.input(_grouped, [result, step, layer], groups, queue=False, **_PLAIN)
    return [prompt, label, *fields, guidance], offered


def _buttons(what: str) -> tuple[gr.Button, gr.Button]:
    with gr.Row():
        start = gr.Button(what, variant="primary", elem_id=f"{what.lower()}-start")
        return start, gr.Button("Stop", elem_id=f"{what.lower()}-stop")


def _stops(button: gr.Button, running: Any, status: gr.HTML) -> None:
    """Ends what is running, and then says so: a last report of it may come in between."""
    ended = button.click(None, None, None, cancels=[running], queue=False, **_PLAIN)
    ended.then(lambda: "Stopped.", None, status, queue=False, **_PLAIN)


def _picture(label: str, **options: Any) -> gr.Image:
    more: dict[str, Any] = {"elem_classes": "pixels", "height": 340, "alt_text": label, "buttons": ["download"]}
    return gr.Image(label=label, format="png", interactive=False, **more, **options)


def _enlarged(image: Pixels | None) -> Pixels | None:
    """At least so large that pixels of a small one are seen."""
    if image is None or len(image) >= _SHOWN:
        return image
    times = -(-_SHOWN // len(image))
    return np.repeat(np.repeat(image, times, 0), times, 1)


def _grouped(known: Comparison | None, step: int, layer: str | None) -> Pixels | None:
    """The tokens that go together at a step in a layer, over the compressed image."""
    if known is None or known.compressed.image is None:
        return None
    grouping = known.groupings[min(int(step), known.steps) - 1].get(layer or "")
    if grouping is None:
        return None
    file = io.BytesIO()
    draw_grouping(grouping, known.compressed.image, file)
    return np.asarray(Image.open(file).convert("RGB"))


def classify_tab(shop: Shop) -> Tab:
    """An image, and the race between its classes."""

    def offered(opened: Opened) -> Fields:
        letters = "\n".join(LETTER.format(letter) for letter in CLASSES)
        fitted = opened.fitted is not None
        prompts = {"visible": not opened.classes, "value": "" if opened.classes else letters}
        return [prompts, *MethodFields.of(opened), {"visible": fitted, "value": fitted}]

    first = offered(shop.first)
    pixels, number = gr.State(), gr.State(0)
    with gr.Row():
        with gr.Column(scale=1):
            file = gr.File(label="An image", file_types=["image"], height=120, elem_id="classify-file")
            another = gr.Button("Take a letter of the embedded test images", elem_id="classify-letter")
            image = _picture("What is classified")
            prompts = gr.Textbox(
                label="Prompts, one on each line", lines=4, max_lines=12, elem_id="classify-prompts", **first[0]
            )
            fields = MethodFields.built(shop.first)
            rules = [(name, key) for key, name in ELIMINATIONS.items()]
            elimination = gr.Radio(rules, value="racing", label="How classes drop out")
            fitted = gr.Checkbox(label="Timesteps and threshold as fitted on validation images", **first[-1])
            compared = gr.Checkbox(value=True, label="Then once more without compression")
            start, stop = _buttons("Classify")
        with gr.Column(scale=2):
            verdict = gr.HTML(elem_id="classify-verdict")

    @told
    def read(path: str | None) -> Iterator[Any]:
        shown = None if path is None else read_image(Path(path), Path(path).name)
        yield shown, _enlarged(shown)

    @told
    def letter(name: str, number: int) -> Iterator[Any]:
        size = shop.opened(name).denoiser.image_size
        shown = Glyphs("test", max(size, Glyphs.smallest)).pixels(number)
        yield shown, _enlarged(shown), number + 1

    @told
    def run(name: str, pixels: Pixels | None, prompts: str, *rest: Any) -> Iterator[Any]:
        *choice, elimination, fitted, compared = rest
        if pixels is None:
            raise ValueError("an image must be given first: a file, or a letter of the embedded test images")
        opened, methods = shop.opened(name), chosen(*choice)
        asked = [] if opened.classes else [line.strip() for line in prompts.splitlines() if line.strip()]
        yield ""

        def work(tell: Callable[[Verdict], None]) -> None:
            classify(opened, pixels, asked, methods, elimination, fitted, compared, tell)

        yield from map(fragments.verdict, shop.worker.reports(work))

    file.upload(read, file, [pixels, image], **_PLAIN)
    file.clear(lambda: (None, None), None, [pixels, image], **_PLAIN)
    another.click(letter, [shop.model, number], [pixels, image, number], **_QUEUED)
    given = [shop.model, pixels, prompts, *fields, elimination, fitted, compared]
    running = start.click(run, given, verdict, **_QUEUED)
    _stops(stop, running, verdict)
    return [prompts, *fields, fitted], offered


def choose_tab(shop: Shop) -> Tab:
    """What each layer costs and saves, and the choice for a budget."""
    folder = Path(tempfile.mkdtemp(prefix="bigain-ui-"))

    def taken(opened: Opened, percent: float) -> list[Any]:
        """What is shown of a choice."""
        found = choose.of_model(opened)
        choice = found.choice(min(percent, found.most))
        here = found.point(choice)
        file = folder / f"{Path(opened.name).name}-{percent:g}.json"
        file.write_text(choose.preset(opened, found, choice), encoding="utf-8")
        pairs = [("FLOPs saved", f"{here['saved']:.1f}%"), ("change, of all layers' alone", f"{here['cost']:.2e}")]
        return [
            fragments.facts(pairs),
            _chart("The least change for what is saved", charts.allocations(found.curve, here)),
            fragments.allocation(choice, found.offers, opened.layers),
            choose.python(opened, file.name),
            str(file),
        ]

    def offered(opened: Opened) -> Fields:
        try:
            found = choose.of_model(opened)
        except FileNotFoundError as error:
            unseen = {"visible": False}
            return [unseen, unseen, {"value": str(error)}, *[unseen] * 4]
        percent = min(20, found.most)
        layers = {"value": _chart("What each layer costs", charts.offered(found.offers)), "visible": True}
        rest = [{"value": value, "visible": True} for value in taken(opened, percent)]
        return [{"maximum": found.most, "value": percent, "visible": True}, layers, *rest]

    first = offered(shop.first)
    saved = gr.Slider(1, step=1, label="FLOPs to save, %", elem_id="choose-saved", **first[0])
    status = gr.HTML(elem_id="choose-status", **first[2])
    with gr.Row():
        with gr.Column():
            curve = gr.HTML(**first[3])
            table = gr.HTML(elem_id="choose-table", **first[4])
        with gr.Column():
            layers = gr.HTML(**first[1])
            code = gr.Textbox(label="In Python", lines=3, buttons=["copy"], elem_id="choose-code", **first[5])
            download = gr.DownloadButton("Download the preset", elem_id="choose-download", **first[6])

    @told
    def run(name: str, percent: float) -> Iterator[Any]:
        yield taken(shop.opened(name), percent)

    shown = [status, curve, table, code, download]
    saved.release(run, [shop.model, saved], shown, **_QUEUED)
    return [saved, layers, *shown], offered


def _chart(title: str, chart: charts.Chart) -> str:
    """With its title, as HTML."""
    drawn = charts.svg(chart, _WIDTH)
    return f'<h3>{title}</h3><div class="chart" tabindex="0" role="region" aria-label="{title}">{drawn}</div>'
