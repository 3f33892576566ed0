"""The diffusion classifier: the class under which a model predicts an image's noise best (Li et al., ICCV 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from bigain.classify.elimination import Floats, Stages, probabilities, rank, survivors
from bigain.classify.pairing import LOSSES, noised, predictions
from bigain.diffusion import Conditions, Denoiser, open_model
from bigain.diffusion.denoiser import memory_advice
from bigain.images import as_batch, content_id


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Classification:
    """The classes of one image, by the model's errors under each.

    Args:
        id: of the image.
        prediction: the best class, the first of ``ranking``.
        ranking: all classes, best first, as positions in the classifier's classes.
        stage: per condition, how many stages it survived.
        errors: (conditions, timesteps) float32, NaN where not evaluated.
        groups: the class of each condition; () where each condition is its own class.
        names: of the classes; () where they have none.
        elements: of a sample, over which the errors are means.
    """

    id: str
    prediction: int
    ranking: tuple[int, ...]
    stage: tuple[int, ...]
    errors: Floats
    groups: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    elements: int = 1

    def __repr__(self) -> str:
        shown = f"prediction={self.prediction}, name={self.name!r}, probability={self.probability:.3f}"
        return f"{type(self).__name__}({shown}, margin={self.margin:.2e}, forwards={self.forwards}, id={self.id!r})"

    @property
    def name(self) -> str:
        """Of the predicted class."""
        return self.names[self.prediction] if self.names else str(self.prediction)

    @property
    def forwards(self) -> int:
        """Forwards of the model that were spent on the image."""
        return int(np.isfinite(self.errors).sum())

    @property
    def margin(self) -> float:
        """The second class's mean error minus the best one's, over the timesteps that they share; 0 is a tie.

        A class counts by its best condition.
        """
        order, classes = rank(self.errors, self.stage), self._groups
        second = next(condition for condition in order if classes[condition] != self.prediction)
        difference = self.errors[second] - self.errors[order[0]].astype(np.float64)
        return float(np.nanmean(difference))

    @property
    def probability(self) -> float:
        """Of the predicted class, at temperature 1; see :meth:`probabilities`."""
        return self.probabilities()[self.prediction]

    def probabilities(self, temperature: float = 1.0) -> tuple[float, ...]:
        """Of all classes, of sum 1: the softmax of the negative errors, averaged over the timesteps that they share.

        An error counts as in Li et al. (2023): as the norm over a sample, that is its mean times ``elements``. What the
        survivors of a stage have together is divided among them anew. A class counts by its best condition.

        They order images by how sure the model is, and no more: the errors are no likelihoods, and larger samples give
        probabilities closer to 0 and 1. Choose a ``temperature`` on labelled images where the value itself matters.

        Args:
            temperature: divides the errors; above 0, or a ValueError.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        of_condition = probabilities(self.errors * np.float64(self.elements), self.stage, temperature)
        best: dict[int, float] = {}
        for condition in rank(self.errors, self.stage):
            best.setdefault(self._groups[condition], float(of_condition[condition]))
        total = sum(best.values())
        return tuple(best[position] / total for position in sorted(best))

    @property
    def _groups(self) -> tuple[int, ...]:
        return self.groups or tuple(range(len(self.stage)))


class DiffusionClassifier:
    """Classifies images by how well a diffusion model predicts their noise under each condition.

    Args:
        model: what :func:`bigain.diffusion.open_model` takes: a pipeline, a denoiser, a name, a folder.
        conditions: one prompt or class label per class; or a sequence of them per class, of which the best counts;
            or a mapping from the classes' names to either; or ready-made :class:`Conditions`. A class without a name is
            called by its first prompt, or as the model calls its label.
        to_keep: conditions kept after each stage.
        n_samples: timesteps evaluated up to each stage. Both count conditions, that is prompts where a class has more
            than one. Left out, they follow from the number of conditions: the papers' (5, 1) and (5, 20) for more than
            five; for up to five no elimination, (1,) and (20,).
        loss: "l2", "l1" or "huber".
        batch_size: rows of a forward, each an (image, condition, timestep); results do not depend on it.
        seed: of all randomness: the noise, and the draws of the methods that are applied to the model.
        groups: the class of each condition, for conditions that are not nested: (conditions,) integers that name
            every class from 0 on. None where each condition is its own class.

    Raises:
        ValueError: for stages, conditions, groups, a loss or a batch size that cannot be; for fewer than two classes;
            and for two classes that the model cannot tell apart, since their prompts are the same to it.

    Example:
        >>> import bigain
        >>> from PIL import Image, ImageDraw
        >>> image = Image.new("RGB", (32, 32), "white")
        >>> ImageDraw.Draw(image).text((8, 2), "B", "black", font_size=26)
        >>> classifier = bigain.DiffusionClassifier("glyphs-dit", range(10))
        >>> classifier.classify(image)[0].name
        'B'
    """

    def __init__(
        self,
        model: Any,
        conditions: Conditions | Mapping[str, Any] | Sequence[Any],
        *,
        to_keep: Sequence[int] | None = None,
        n_samples: Sequence[int] | None = None,
        loss: str = "l2",
        batch_size: int = 64,
        seed: int = 0,
        groups: Sequence[int] | None = None,
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {loss!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.denoiser: Denoiser = open_model(model)
        names: tuple[str, ...] = ()
        if isinstance(conditions, Mapping):
            names, conditions = tuple(str(name) for name in conditions), list(conditions.values())
        if not isinstance(conditions, Conditions):
            conditions, nested = _flat(conditions)
            if nested is not None and groups is not None:
                raise ValueError("groups must be left out with nested conditions, which are groups themselves")
            groups = nested if nested is not None else groups
            conditions = self.denoiser.conditions(conditions)
        self.conditions = conditions
        self.groups = _checked_groups(groups, len(self.conditions))
        _check_distinct(self.conditions, self.groups)
        self.names = names or self._usual_names()
        self.stages = Stages.of(len(self.conditions), to_keep, n_samples)
        self.stages.check(len(self.conditions), self.denoiser.process.steps)
        self.timesteps: Tensor = self.denoiser.process.timesteps(self.stages.n_samples[-1])
        self.loss = loss
        self.batch_size = batch_size
        self.seed = seed

    def _usual_names(self) -> tuple[str, ...]:
        """Each class by its first prompt or label, or what the model calls that label."""
        called: dict[Any, str] = {}
        for name, label in getattr(self.denoiser, "labels", {}).items():
            called.setdefault(label, name)
        first = [self.conditions.names[self.groups.index(group)] for group in range(self.classes)]
        return tuple(called.get(condition, str(condition)) for condition in first)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return max(self.groups) + 1

    @property
    def forwards(self) -> int:
        """Forwards of the model per image."""
        return self.stages.forwards(len(self.conditions))

    def classify(
        self, images: Any, ids: Sequence[str] | None = None, *, progress: bool = False
    ) -> list[Classification]:
        """Classifies images together, stage by stage.

        Args:
            images: one image or a sequence of them, each a PIL image, a uint8 array (H, W, 3) or the path of a file.
                They are preprocessed: short side to the model's size S (bicubic), centre crop, to [-1, 1]. Or a tensor
                (B, 3, S, S) of floats in [-1, 1] that is preprocessed already.
            ids: the images' names, all different, which seed the noise. Left out, an image is named by its pixels.
            progress: whether to show a bar that counts forwards.

        Returns:
            One classification per image, in their order.

        Raises:
            ValueError: for ids that are doubled or do not match the images, and images that are none or do not fit.
            TypeError: for images of another type.
            FloatingPointError: where a prediction of the model is not finite.
            torch.OutOfMemoryError: with the batch size to try next.
        """
        images = as_batch(images, self.denoiser.image_size)
        x0 = self.denoiser.encode(images)
        ids = [content_id(image) for image in images] if ids is None else _checked_ids(ids, len(images))
        count = len(self.conditions)
        errors = np.full((len(ids), count, len(self.timesteps)), np.nan, dtype=np.float32)
        stage = np.zeros((len(ids), count), dtype=np.int64)
        alive = torch.arange(count).repeat(len(ids), 1)  # (B, alive)
        with tqdm(total=len(ids) * self.forwards, disable=not progress, desc="classify", unit="forward") as bar:
            for keep, positions in zip(self.stages.to_keep, self.stages.positions(), strict=True):
                losses = self._stage(x0, ids, alive, positions, bar)  # (B, positions, alive)
                for i, kept in enumerate(alive.tolist()):
                    errors[i][np.ix_(kept, positions)] = losses[i].T
                alive = torch.tensor([survivors(errors[i], kept, keep) for i, kept in enumerate(alive.tolist())])
                for i, kept in enumerate(alive.tolist()):
                    stage[i, kept] += 1
        return [self._classification(*row) for row in zip(ids, errors, stage.tolist(), strict=True)]

    def _stage(self, x0: Tensor, ids: list[str], alive: Tensor, positions: tuple[int, ...], bar: Any) -> Floats:
        """Errors of a stage, (B, positions, alive)."""
        kept = alive.shape[1]
        steps = torch.tensor(positions)
        total = len(ids) * len(steps) * kept
        losses = []
        # Rows run over images, then timesteps, then conditions. They are counted, never listed: ImageNet has millions.
        for first in range(0, total, self.batch_size):
            row = torch.arange(first, min(first + self.batch_size, total))
            image = row // (len(steps) * kept)
            position = steps[row // kept % len(steps)]
            condition = alive[image, row % kept]
            with memory_advice(len(row)):
                losses.append(self._losses(x0, ids, image, position, condition))
            bar.update(len(row))
        # One transfer per stage: one per batch would make the CPU wait for the device each time.
        result: Floats = torch.cat(losses).cpu().numpy().reshape(len(ids), len(steps), kept)
        if not np.isfinite(result).all():
            worst = int(np.argwhere(~np.isfinite(result))[0, 0])
            raise FloatingPointError(
                f"the prediction for image {ids[worst]!r} must be finite, which it is not in {self.denoiser.dtype}; "
                "try bfloat16 or float32, and check the weights and what is applied to the model"
            )
        return result

    @torch.no_grad()
    def _losses(self, x0: Tensor, ids: list[str], image: Tensor, position: Tensor, condition: Tensor) -> Tensor:
        """(R,) float32 losses of the rows (image, timestep, condition); indices are (R,) on the CPU."""
        count = len(self.timesteps)
        # Rows that differ only in the condition share noise and target, so those are made once per pair.
        pair, row_pair = torch.unique(image * count + position, return_inverse=True)
        pair_image, pair_t = pair // count, self.timesteps[pair % count]
        clean = x0[pair_image.to(x0.device)]
        x_t, target = noised(self.denoiser, clean, [ids[i] for i in pair_image.tolist()], pair_t, self.seed)
        row_pair = row_pair.to(x_t.device)
        row_ids, t = [ids[i] for i in image.tolist()], self.timesteps[position]
        prediction = predictions(self.denoiser, x_t[row_pair], row_ids, t, self.conditions, condition, self.seed)
        return LOSSES[self.loss](prediction, target[row_pair])

    def _classification(self, image_id: str, errors: Floats, stage: list[int]) -> Classification:
        order = [self.groups[condition] for condition in rank(errors, stage)]
        ranking = tuple(dict.fromkeys(order))  # a class stands where its best prompt stands
        return Classification(
            id=image_id,
            prediction=ranking[0],
            ranking=ranking,
            stage=tuple(stage),
            errors=errors.copy(),
            groups=self.groups,
            names=self.names,
            elements=math.prod(self.denoiser.sample_shape),
        )


def _checked_ids(ids: Sequence[str], images: int) -> list[str]:
    names = list(ids)
    if len(names) != images:
        raise ValueError(f"ids must name each of the {images} images, not {len(names)}")
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"ids must be strings, not {name!r}")
        if name in seen:
            raise ValueError(f"ids must differ, as they seed the noise, but {name!r} occurs more than once")
        seen.add(name)
    return names


def _flat(conditions: Sequence[Any]) -> tuple[list[Any], list[int] | None]:
    """Conditions in one list, and the class of each if they were nested."""
    if isinstance(conditions, str):
        raise ValueError(f"conditions must be a sequence with one prompt per class, not the string {conditions!r}")
    nested = [isinstance(c, Sequence) and not isinstance(c, str) for c in conditions]
    if not any(nested):
        return list(conditions), None
    if not all(nested):
        raise ValueError("conditions must be one per class, or a sequence per class, not both")
    for index, own in enumerate(conditions):
        if len(own) == 0:
            raise ValueError(f"conditions must hold at least one prompt or label for class {index}, not 0")
    return [c for own in conditions for c in own], [index for index, own in enumerate(conditions) for _ in own]


def _checked_groups(groups: Sequence[int] | None, conditions: int) -> tuple[int, ...]:
    if groups is None:
        return tuple(range(conditions))
    if len(groups) != conditions:
        raise ValueError(f"groups must have one entry for each of the {conditions} conditions, not {len(groups)}")
    missing = sorted(set(range(max(groups) + 1)) - set(groups))
    if min(groups) < 0 or missing:
        raise ValueError(
            f"groups must name every class from 0 to {max(groups)}; lowest is {min(groups)}, missing: {missing}"
        )
    return tuple(int(group) for group in groups)


def _check_distinct(conditions: Conditions, groups: Sequence[int]) -> None:
    """Raises a ValueError for a single class, and for classes with one condition in common: a tie at every timestep."""
    if max(groups) == 0:
        raise ValueError("conditions must hold at least two classes to tell apart, not 1")
    first: dict[Any, int] = {}
    for position, what in enumerate(conditions.read or conditions.names):
        other = first.setdefault(what, position)
        if groups[other] != groups[position]:
            one, two = conditions.names[other], conditions.names[position]
            why = "" if one == two else f" and {two!r}, which the model reads as the same text"
            raise ValueError(
                f"conditions must differ between classes, but classes {groups[other]} and {groups[position]} "
                f"have {one!r}{why}"
            )
