"""Class-conditional transformers: DiT (Peebles & Xie, ICCV 2023), on pixels or on latents."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bigain.diffusion.denoiser import Conditions, Denoiser
from bigain.diffusion.latents import Latents, Pixels


class ClassConditional(Denoiser):
    """A ``DiTTransformer2DModel`` with a scheduler, from a ``DiTPipeline`` or as parts.

    Args:
        pipe: a ``DiTPipeline``; the other arguments are then left out.
        model: a ``DiTTransformer2DModel``.
        scheduler: a diffusers scheduler.
        vae: an ``AutoencoderKL``; None for a model that denoises pixels.
        labels: the model's label by name of the class, where it is known.

    Raises:
        ValueError: a label outside [0, classes).
    """

    kind = "class"

    def __init__(
        self,
        pipe: Any = None,
        *,
        model: Any = None,
        scheduler: Any = None,
        vae: Any = None,
        labels: Mapping[str, int] | None = None,
    ) -> None:
        vae = vae if pipe is None else pipe.vae
        space = Pixels() if vae is None else Latents(vae)
        super().__init__(space=space, pipe=pipe, model=model, scheduler=scheduler)
        # Of a pipeline: the synonyms of its id2label, each on its own.
        self.labels: dict[str, int] = dict(labels or getattr(pipe, "labels", None) or {})
        for name, label in self.labels.items():
            if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < self.classes:
                raise ValueError(f"the label of {name!r} must be an integer in [0, {self.classes}), not {label!r}")

    @property
    def classes(self) -> int:
        """Number of class labels; the label after the last is the unconditional one."""
        return int(self.model.config.num_embeds_ada_norm)

    def conditions(self, conditions: Sequence[str] | Sequence[int]) -> Conditions:
        """Class labels as they are, and the unconditional label as one more row at ``null_index``.

        Raises:
            ValueError: for no label, one that is not an integer, or one outside [0, classes).
        """
        labels: list[int] = []
        for value in conditions:
            if isinstance(value, (str, bool)) or not hasattr(value, "__index__"):
                raise ValueError(f"conditions must be class labels, integers in [0, {self.classes}), not {value!r}")
            label = operator.index(value)
            if not 0 <= label < self.classes:
                raise ValueError(f"conditions must be class labels in [0, {self.classes}), not {label}")
            labels.append(label)
        table = torch.tensor([*labels, self.classes], dtype=torch.long, device=self.device)
        return Conditions(tuple(labels), {"class_labels": table}, null_index=len(labels))
