"""What a method is called in tables and pictures, and which settings of it belong together."""

from __future__ import annotations

from dataclasses import dataclass

from bigain.methods import InterpolateExtrapolateKV, Linear, Method, TokenMerging, ToMe, parse, spec
from bigain.zoo.presets import names, text_of

_NAMES = {
    "lgtm": "L-GTM",
    "abm": "ABM",
    "quadtree": "Quadtree",
    "tome": "ToMe",
    "sito": "SiTo",
    "iekvd": "IE-KVD",
    "todo": "ToDo",
    "avgpool": "Average",
    "freqsel": "Frequency selection",
}
_WORDS = {
    ("size_aware", "true"): "size-aware",
    ("queries", "full"): "keys and values alone",
    ("cached", "true"): "cached",
    ("features", "first"): "by the level's first tokens",
}

PRESET = "Preset"  # the name of all presets of models
_PRESETS = ("quality", "balanced", "fast")  # from little to much


@dataclass(frozen=True)
class Label:
    """How a method × setting is shown.

    Args:
        name: of the method, "ToMe".
        variant: its settings other than the strength, "random per image"; empty where it is as published.
        strength: how much it compresses, "50%" of the tokens merged or "2×" fewer rows and columns of keys.
        amount: the strength as a number that grows with the compression.
    """

    name: str
    variant: str
    strength: str
    amount: float

    @property
    def family(self) -> str:
        """All but the strength."""
        return f"{self.name}, {self.variant}" if self.variant else self.name

    def __str__(self) -> str:
        text = f"{self.name} {self.strength}".strip()
        return f"{text}, {self.variant}" if self.variant else text


def label(text: str) -> Label:
    """The label of a spec, or of the name of a preset.

    Example:
        >>> str(label("tome:ratio=0.5,destinations=random,redraw=forward"))
        'ToMe 50%, random per forward'
    """
    methods = parse(text_of(text))
    if not methods:
        return Label("No compression", "", "", 0.0)
    if len(methods) == 1:
        return _label(methods[0])
    for preset in names():
        if parse(text_of(preset)) == methods:
            _, _, name = preset.partition("/")
            return Label(PRESET, "", name, float(_PRESETS.index(name)))
    labels = [_label(method) for method in methods]
    return Label(" + ".join(map(str, labels)), "", "", max(one.amount for one in labels))


def _label(method: Method) -> Label:
    settings = dict(part.split("=", 1) for part in spec(method).partition(":")[2].split(",") if part)
    words: list[str] = []
    if isinstance(method, TokenMerging):
        settings.pop("ratio")
        strength, amount = _ratio(method.ratio)
    else:
        settings.pop("factor")
        strength, amount = f"{method.factor}×", float(method.factor)
    if isinstance(method, ToMe):
        settings.pop("destinations", None)
        settings.pop("redraw", None)
        kinds = {"first": "first of the cell", "random": f"random per {method.redraw}", "offset": "offset by layer"}
        words.append(kinds[method.destinations])
    if isinstance(method, InterpolateExtrapolateKV):
        settings.pop("alpha", None)
        words.append(f"α {_number(method.alpha)}")
    words += [_WORDS.get((name, value), f"{name} {value}") for name, value in settings.items()]
    return Label(_NAMES[method.name], ", ".join(words), strength, amount)


def _ratio(ratio: float | Linear) -> tuple[str, float]:
    if isinstance(ratio, Linear):
        return f"{100 * ratio.noisy:g}→{100 * ratio.clean:g}%", (ratio.noisy + ratio.clean) / 2
    return f"{100 * ratio:.4g}%", ratio


def _number(value: float | Linear) -> str:
    return f"{value.noisy:g}→{value.clean:g}" if isinstance(value, Linear) else f"{value:g}"
