"""The diffusion classifier: the class under which a model predicts an image's noise best (Li et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from bigain.classify.elimination import Floats, Stages, rank, survivors
from bigain.classify.losses import LOSSES
from bigain.classify.pairing import keyed_prediction, paired_noise
from bigain.diffusion import Conditions, Denoiser, image_key, open_model


@dataclass(frozen=True, eq=False)
class Classification:
    """What the classifier found for one image.

    Args:
        id: of the image.
        errors: (conditions, timesteps) float32, NaN where not evaluated.
        stage: per condition, how many stages it survived.
        ranking: all classes, best first, as positions in the classifier's conditions.
        prediction: the first of ``ranking``.
    """

    id: str
    errors: Floats
    stage: tuple[int, ...]
    ranking: tuple[int, ...]
    prediction: int


class DiffusionClassifier:
    """Classifies images by how well a diffusion model predicts their noise under each condition.

    Args:
        model: what :func:`bigain.diffusion.open_model` takes: a pipeline, a denoiser, a name, a folder.
        conditions: one prompt or class label per class; or a sequence of them per class, of which the best counts;
            or ready-made :class:`Conditions`.
        to_keep: conditions kept after each stage.
        n_samples: timesteps evaluated up to each stage. Both count conditions as they are, that is prompts where a
            class has several. The default is the papers' "5 1 / 5 20".
        loss: "l2", "l1" or "huber".
        batch_size: rows of a forward, each an (image, condition, timestep); results do not depend on it.
        seed: of the noise.
        groups: the class of each condition, for conditions that are not nested: (conditions,) integers that name
            every class from 0 on. None where each condition is its own class.

    Raises:
        ValueError: for stages, conditions, groups, a loss or a batch size that cannot be; names the field and range.

    Example:
        >>> classifier = bigain.DiffusionClassifier(pipe, ["a photo of a cat.", "a photo of a dog."], to_keep=(2, 1))
        >>> classifier.classify(images, ids)[0].prediction
    """

    def __init__(
        self,
        model: Any,
        conditions: Conditions | Sequence[Any],
        *,
        to_keep: Sequence[int] = (5, 1),
        n_samples: Sequence[int] = (5, 20),
        loss: str = "l2",
        batch_size: int = 64,
        seed: int = 0,
        groups: Sequence[int] | None = None,
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss is {loss!r}; it must be one of {', '.join(LOSSES)}")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        self.denoiser: Denoiser = open_model(model)
        self.stages = Stages(tuple(to_keep), tuple(n_samples))
        if not isinstance(conditions, Conditions):
            conditions, nested = _flat(conditions)
            if nested is not None and groups is not None:
                raise ValueError("groups cannot be given beside nested conditions, which are groups themselves")
            groups = nested if nested is not None else groups
            conditions = self.denoiser.conditions(conditions)
        self.conditions = conditions
        self.groups = _checked_groups(groups, len(self.conditions))
        self.stages.check(len(self.conditions), self.denoiser.process.steps)
        self.timesteps: Tensor = self.denoiser.process.timesteps(self.stages.n_samples[-1])
        self.loss = loss
        self.batch_size = batch_size
        self.seed = seed

    @property
    def classes(self) -> int:
        """Number of classes."""
        return max(self.groups) + 1

    @property
    def forwards(self) -> int:
        """Forwards of the model per image."""
        return self.stages.forwards(len(self.conditions))

    def classify(self, images: Tensor, ids: Sequence[str], *, progress: bool = False) -> list[Classification]:
        """Classifies images together, stage by stage.

        Args:
            images: (B, 3, S, S) floats in [-1, 1], S the model's image size.
            ids: the images' names, all different; they seed the noise.
            progress: whether to show a bar that counts forwards.

        Returns:
            One classification per image, in their order.

        Raises:
            ValueError: for ids that are doubled or do not match the images, and as :meth:`Denoiser.encode`.
            FloatingPointError: where a prediction of the model is not finite.
        """
        ids = _checked_ids(ids, len(images))
        x0 = self.denoiser.encode(images)
        keys = torch.tensor([image_key(name) for name in ids])
        count = len(self.conditions)
        errors = np.full((len(ids), count, len(self.timesteps)), np.nan, dtype=np.float32)
        stage = np.zeros((len(ids), count), dtype=np.int64)
        alive = torch.arange(count).repeat(len(ids), 1)  # (B, alive)
        with tqdm(total=len(ids) * self.forwards, disable=not progress, desc="classify", unit="forward") as bar:
            for keep, positions in zip(self.stages.to_keep, self.stages.positions(), strict=True):
                found = self._stage(x0, ids, keys, alive, positions, bar)  # (B, positions, alive)
                for i, kept in enumerate(alive.tolist()):
                    errors[i][np.ix_(kept, positions)] = found[i].T
                alive = torch.tensor([survivors(errors[i], kept, keep) for i, kept in enumerate(alive.tolist())])
                for i, kept in enumerate(alive.tolist()):
                    stage[i, kept] += 1
        return [self._classification(*each) for each in zip(ids, errors, stage.tolist(), strict=True)]

    def _stage(
        self, x0: Tensor, ids: list[str], keys: Tensor, alive: Tensor, positions: tuple[int, ...], bar: Any
    ) -> Floats:
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
            losses.append(self._losses(x0, ids, keys[image], image, position, condition))
            bar.update(len(row))
        # One transfer per stage: one per batch would make the CPU wait for the device each time.
        result: Floats = torch.cat(losses).cpu().numpy().reshape(len(ids), len(steps), kept)
        if not np.isfinite(result).all():
            worst = int(np.argwhere(~np.isfinite(result))[0, 0])
            raise FloatingPointError(
                f"a prediction for image {ids[worst]!r} is not finite in {self.denoiser.dtype}; "
                "try bfloat16 or float32, and look at what is applied to the model"
            )
        return result

    @torch.no_grad()
    def _losses(
        self, x0: Tensor, ids: list[str], keys: Tensor, image: Tensor, position: Tensor, condition: Tensor
    ) -> Tensor:
        """(R,) float32 losses of the rows (image, timestep, condition); keys and indices are (R,) on the CPU."""
        process, device = self.denoiser.process, self.denoiser.device
        count = len(self.timesteps)
        # Rows that differ in the condition alone share noise and target, so those are made once per pair.
        pair, row_pair = torch.unique(image * count + position, return_inverse=True)
        pair_image, pair_t = pair // count, self.timesteps[pair % count]
        pairs = zip(pair_image.tolist(), pair_t.tolist(), strict=True)
        noise = torch.stack([paired_noise(self.seed, ids[i], t, x0.shape[1:]) for i, t in pairs]).to(device)
        clean = x0[pair_image.to(device)]
        row_pair = row_pair.to(device)
        x_t = process.noise(clean, noise, pair_t)[row_pair]
        target = process.target(clean, noise, pair_t)
        t = self.timesteps[position]
        prediction = keyed_prediction(self.denoiser, x_t, t, self.conditions, condition, keys)
        return LOSSES[self.loss](prediction, target[row_pair])

    def _classification(self, image_id: str, errors: Floats, stage: list[int]) -> Classification:
        order = [self.groups[condition] for condition in rank(errors, stage)]
        ranking = tuple(dict.fromkeys(order))  # a class stands where its best prompt stands
        return Classification(image_id, errors.copy(), tuple(stage), ranking, ranking[0])


def _checked_ids(ids: Sequence[str], images: int) -> list[str]:
    names = list(ids)
    if len(names) != images:
        raise ValueError(f"there are {images} images and {len(names)} ids; there must be one id per image")
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"id {name!r} is not a string")
        if name in seen:
            raise ValueError(f"id {name!r} occurs more than once; ids seed the noise and must differ")
        seen.add(name)
    return names


def _flat(conditions: Sequence[Any]) -> tuple[list[Any], list[int] | None]:
    """Conditions in one list, and the class of each if they were nested."""
    if isinstance(conditions, str):
        raise ValueError(f"conditions is the string {conditions!r}; give a sequence with one prompt per class")
    nested = [isinstance(c, Sequence) and not isinstance(c, str) for c in conditions]
    if not any(nested):
        return list(conditions), None
    if not all(nested):
        raise ValueError("conditions mix single ones with sequences; give one per class, or a sequence per class")
    for index, several in enumerate(conditions):
        if len(several) == 0:
            raise ValueError(f"class {index} has no condition; give at least one prompt or label")
    return [c for several in conditions for c in several], [i for i, several in enumerate(conditions) for _ in several]


def _checked_groups(groups: Sequence[int] | None, conditions: int) -> tuple[int, ...]:
    if groups is None:
        return tuple(range(conditions))
    if len(groups) != conditions:
        raise ValueError(f"groups has {len(groups)} entries for {conditions} conditions; it must have one for each")
    missing = sorted(set(range(max(groups) + 1)) - set(groups))
    if min(groups) < 0 or missing:
        raise ValueError(
            f"groups must name every class from 0 to {max(groups)}; lowest is {min(groups)}, missing: {missing}"
        )
    return tuple(int(group) for group in groups)
