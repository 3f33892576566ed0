"""The diffusion classifier: the class under which a model predicts an image's noise best (Li et al., ICCV 2023)."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bigain import zoo
from bigain.backbones import applied_to, compressed
from bigain.classify.classes import Classes
from bigain.classify.elimination import Ask, Contest, Elimination, Stages
from bigain.classify.fitting import Fitted, fit
from bigain.classify.pairing import Scoring, batches, noised, predictions
from bigain.classify.prediction import Floats, Prediction
from bigain.classify.racing import Racing
from bigain.diffusion import Conditions, Denoiser, open_model
from bigain.diffusion.denoiser import memory_advice
from bigain.images import as_images, content_id
from bigain.progress import progress_bar
from bigain.videos import as_videos

_WINDOW = 64  # images that share batches


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
        elimination: in place of stages: "racing", or :class:`Stages`, :class:`Racing` or :class:`Hierarchy` with
            settings of their own, such as the compression of each phase.
        loss: "l2", "l1" or "huber"; or a :class:`Scoring`, for errors weighted in another way, or other timesteps.
        batch_size: rows of a forward, each an (image, condition, timestep); results do not depend on it.
        seed: of all randomness: the noise, and the draws of the methods that are applied to the model.

    Raises:
        ValueError: for stages, conditions, a loss or a batch size that cannot be; for fewer than two classes;
            and for two classes that the model cannot tell apart, since their prompts are the same to it. A UserWarning
            for a model that was distilled to few steps.

    Example:
        >>> import bigain
        >>> from PIL import Image, ImageDraw
        >>> image = Image.new("RGB", (32, 32), "white")
        >>> ImageDraw.Draw(image).text((8, 2), "B", "black", font_size=26)
        >>> classifier = bigain.DiffusionClassifier("glyphs-dit", range(10))
        >>> classifier.predict(image)[0].name
        'B'
    """

    def __init__(
        self,
        model: Any,
        conditions: Conditions | Mapping[str, Any] | Sequence[Any],
        *,
        to_keep: Sequence[int] | None = None,
        n_samples: Sequence[int] | None = None,
        elimination: Elimination | str = "staged",
        loss: str | Scoring = "l2",
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        self.scoring = loss if isinstance(loss, Scoring) else Scoring(loss)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.denoiser: Denoiser = open_model(model)
        self._classes = Classes.of(self.denoiser, conditions, getattr(elimination, "inner", ()))
        self.elimination = elimination_of(elimination, len(self.groups), to_keep, n_samples)
        self.elimination.check(len(self.groups), self.denoiser.process.steps)
        self.timesteps: Tensor = self.denoiser.timesteps(self.elimination.timesteps, self.scoring.spacing)
        self.fitted: Fitted | None = None
        self.batch_size = batch_size
        self.seed = seed
        if why := self.denoiser.distilled:
            warnings.warn(
                f"the model must predict what it was noised with for its errors to mean much, but it seems to be "
                f"distilled to few steps, by {why}",
                stacklevel=2,
            )

    @property
    def conditions(self) -> Conditions:
        """What the model is asked, encoded."""
        return self._classes.conditions

    @property
    def groups(self) -> tuple[int, ...]:
        """The class of each condition."""
        return self._classes.groups

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return self._classes.names

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self._classes)

    @property
    def forwards(self) -> int:
        """Forwards of the model per image, at most."""
        return self.elimination.forwards(len(self.groups))

    def fit(
        self,
        images: Any,
        labels: Sequence[int | str] | None = None,
        *,
        ids: Sequence[str] | None = None,
        candidates: int = 40,
        error_rate: float = 0.02,
        progress: bool = False,
    ) -> DiffusionClassifier:
        """Learns from a few images which timesteps tell, how they weigh, when to drop a class, and how sure to be.

        Every class is evaluated at ``candidates`` timesteps of every image, without elimination. Half of the images
        chooses among them, the other half sets the threshold of the race and the temperature: see
        :mod:`bigain.classify.fitting`. The number of timesteps stays that of the elimination.

        Args:
            images: as for :meth:`predict`; 100 to 400 do.
            labels: the true class of each, as its name or number; left out, the winners of the full evaluation.
            ids: as for :meth:`predict`.
            candidates: evenly spaced timesteps to choose among.
            error_rate: share of images on which a race may end otherwise than an evaluation of all classes at the
                chosen timesteps.
            progress: whether to show a bar that counts forwards.

        Returns:
            Itself.

        Raises:
            ValueError: for too few images for the error rate, or labels that do not fit; or as :meth:`predict`.
        """
        true = None if labels is None else self._labels(labels)
        full = copy(self)
        full.elimination = Stages((1,), (candidates,), self.elimination.methods[:1])
        full.elimination.check(len(self.groups), self.denoiser.process.steps)
        full.timesteps, full.fitted = self.denoiser.timesteps(candidates, self.scoring.spacing), None
        predictions = full.predict(images, ids, progress=progress)
        if true is not None and len(true) != len(predictions):
            raise ValueError(f"labels must be one for each of the {len(predictions)} images, not {len(true)}")
        fitted = fit(
            np.stack([one.errors for one in predictions]).astype(np.float64),
            true,
            full.timesteps.tolist(),
            count=min(self.elimination.timesteps, candidates),
            error_rate=error_rate,
            groups=self.groups,
            elements=math.prod(self.denoiser.sample_shape),
        )
        return self.use(fitted)

    def use(self, fitted: Fitted | Path | str) -> DiffusionClassifier:
        """Takes timesteps, weights, threshold and temperature from a fit: of a file, or of an embedded model by name.

        Returns itself; a ValueError where the model has no such timesteps.
        """
        fitted = fitted if isinstance(fitted, Fitted) else Fitted.read(fitted_file(fitted))
        if max(fitted.timesteps) >= self.denoiser.process.steps:
            raise ValueError(f"timesteps must lie under {self.denoiser.process.steps}, not {max(fitted.timesteps)}")
        elimination = self.elimination.fitted(fitted)
        elimination.check(len(self.groups), self.denoiser.process.steps)
        self.elimination, self.fitted = elimination, fitted
        self.timesteps = torch.tensor(fitted.timesteps[: elimination.timesteps])
        return self

    def predict(
        self,
        images: Any,
        ids: Sequence[str] | None = None,
        *,
        progress: bool = False,
        watch: Callable[[Contest], object] | None = None,
    ) -> list[Prediction]:
        """Classifies images, a few dozen at a time.

        Args:
            images: what :func:`bigain.images.as_images` takes: one image or many, as PIL images, uint8 arrays
                (H, W, 3) or paths; a folder; a data set of Hugging Face; or a tensor (B, 3, S, S) of floats in [-1, 1]
                that is preprocessed already, which the others are here (short side to the model's size S, centre crop).
                For a model of videos what :func:`bigain.videos.as_video_batch` takes.
            ids: the images' names, all different, which seed the noise. Left out, an image is named by its pixels.
            progress: whether to show a bar that counts forwards.
            watch: is called with the :class:`Contest` of an image after each of its rounds; what it raises ends the
                classification.

        Returns:
            One prediction per image, in their order.

        Raises:
            ValueError: for ids that are doubled or do not match the images, and images that are none or do not fit.
            TypeError: for images of another type.
            FloatingPointError: where a prediction of the model is not finite.
            torch.OutOfMemoryError: with the batch size to try next.
        """
        images = as_videos(images) if self.denoiser.is_video else as_images(images)
        names = None if ids is None else _checked_ids(ids, len(images))
        results: list[Prediction] = []
        with progress_bar(len(images) * self.forwards, progress, desc="classify", unit="forward") as bar:
            for first in range(0, len(images), _WINDOW):
                batch = self.denoiser.prepare(images[first : first + _WINDOW])
                own = [content_id(image) for image in batch] if names is None else names[first : first + _WINDOW]
                results += self._together(batch, own, bar, watch or (lambda _: None))
        return results

    def score(self, images: Any, labels: Sequence[int | str]) -> float:
        """Accuracy on labelled images, as scikit-learn asks an estimator for it."""
        right = [one.prediction == label for one, label in zip(self.predict(images), self._labels(labels), strict=True)]
        return float(np.mean(right))

    def __sklearn_is_fitted__(self) -> bool:
        return True  # fit only makes it better

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        return Tags(estimator_type="classifier", target_tags=TargetTags(False), classifier_tags=ClassifierTags())

    def _together(
        self, images: Tensor, ids: list[str], bar: Any, watch: Callable[[Contest], object]
    ) -> list[Prediction]:
        """The images of a window, round by round: rows of all images share batches, so these stay full."""
        x0 = self.denoiser.encode(images)
        shape = (len(self.conditions), len(self.timesteps))  # with the groups of a tree, after the classes
        weights = np.ones(shape[1]) if self.fitted is None else np.array(self.fitted.weights[: shape[1]])
        contests = [
            Contest(name, np.full(shape, np.nan, dtype=np.float32), weights, telling=self.fitted is not None)
            for name in ids
        ]
        rounds = [self.elimination.rounds(contest) for contest in contests]
        asks = {image: next(own) for image, own in enumerate(rounds)}
        while asks:
            phase = min(ask.phase for ask in asks.values())
            wave = {image: ask for image, ask in asks.items() if ask.phase == phase}
            with self._compressed(phase):
                for part in self._parted(wave):
                    losses = self._losses_of(x0, ids, part, bar)
                    for (image, ask), errors in zip(part.items(), losses, strict=True):
                        contests[image].errors[np.ix_(ask.conditions, ask.positions)] = errors.T
                        contests[image].forwards += errors.size
            for image in wave:
                following = next(rounds[image], None)
                watch(contests[image])
                if following is None:
                    del asks[image]
                    bar.update(self.forwards - contests[image].forwards)
                else:
                    asks[image] = following
        return [self._prediction(contest) for contest in contests]

    def _compressed(self, phase: int) -> AbstractContextManager[object]:
        methods = self.elimination.methods
        return compressed(self.denoiser, methods[phase]) if methods else nullcontext()

    def _parted(self, wave: dict[int, Ask]) -> Iterator[dict[int, Ask]]:
        """The asks by the range of t in which they lie, where what is applied acts in a range only."""
        methods = applied_to(self.denoiser)
        if not methods.follows_t:
            yield wave
            return
        for places in methods.parted(self.timesteps.tolist()):
            own = {
                image: replace(ask, positions=[position for position in ask.positions if position in places])
                for image, ask in wave.items()
            }
            if part := {image: ask for image, ask in own.items() if ask.positions}:
                yield part

    def _losses_of(self, x0: Tensor, ids: list[str], wave: Mapping[int, Ask], bar: Any) -> list[Floats]:
        """Per ask its errors, (positions, conditions)."""
        losses = []
        for image, position, condition in batches(wave, self.batch_size):
            with memory_advice(len(image)):
                losses.append(self._losses(x0, ids, image, position, condition))
            bar.update(len(image))
        # One transfer per round: one per batch would make the CPU wait for the device each time.
        values: Floats = torch.cat(losses).cpu().numpy()
        sizes = [len(ask.conditions) * len(ask.positions) for ask in wave.values()]
        result = []
        for (number, ask), own in zip(wave.items(), np.split(values, np.cumsum(sizes)[:-1]), strict=True):
            if not np.isfinite(own).all():
                raise FloatingPointError(
                    f"the prediction for image {ids[number]!r} must be finite, which it is not in "
                    f"{self.denoiser.dtype}; try bfloat16 or float32, and check the weights and what is applied to "
                    f"the model"
                )
            result.append(own.reshape(len(ask.positions), len(ask.conditions)))
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
        row_ids, t = [ids[i] for i in image.tolist()], self.timesteps[position]
        on_device = row_pair.to(x_t.device)
        prediction = predictions(
            self.denoiser, x_t[on_device], row_ids, t, self.conditions, condition, self.seed, row_pair
        )
        return self.scoring.errors(self.denoiser.process, prediction, target[on_device], t)

    def _prediction(self, contest: Contest) -> Prediction:
        return contest.prediction(
            self.groups,
            names=self.names,
            elements=math.prod(self.denoiser.sample_shape),
            temperature=1.0 if self.fitted is None else self.fitted.temperature,
        )

    def _labels(self, labels: Sequence[int | str]) -> npt.NDArray[np.int64]:
        """Numbers of the classes that labels name."""
        places = {name: place for place, name in enumerate(self.names)}
        numbers = []
        for label in labels:
            number = places.get(label) if isinstance(label, str) else operator.index(label)
            if number is None or not 0 <= number < self.classes:
                names = ", ".join(self.names[:10])
                raise ValueError(f"labels must be names ({names}) or numbers under {self.classes}, not {label!r}")
            numbers.append(number)
        return np.array(numbers)


def fitted_file(source: Path | str) -> Path:
    """The file of a fit: that of an embedded model, which is called by name, or another by its path."""
    if isinstance(source, str) and source.replace("_", "-") in zoo.names():
        return zoo.path(source) / "classifier.json"
    return Path(source)


def elimination_of(
    elimination: Elimination | str, conditions: int, to_keep: Sequence[int] | None, n_samples: Sequence[int] | None
) -> Elimination:
    """The elimination of a name, or one that is made already and then has its own settings; a ValueError for others."""
    if elimination == "staged":
        return Stages.of(conditions, to_keep, n_samples)
    if to_keep is not None or (n_samples is not None and elimination != "racing"):
        raise ValueError(f"to_keep and n_samples must be left out with elimination {elimination!r}")
    if elimination == "racing":
        if n_samples is not None and len(n_samples) != 1:
            raise ValueError(f"n_samples must be one number of timesteps for a race, not {tuple(n_samples)}")
        return Racing(n_samples[0]) if n_samples else Racing()
    if isinstance(elimination, str):
        raise ValueError(f"elimination must be staged, racing or one made by hand, not {elimination!r}")
    return elimination


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
