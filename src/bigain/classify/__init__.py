"""The diffusion classifier: paired noise, errors per condition and timestep, and how classes are eliminated."""

from bigain.classify.classifier import DiffusionClassifier, elimination_of
from bigain.classify.elimination import Ask, Contest, Elimination, Stages
from bigain.classify.fitting import Fitted
from bigain.classify.hierarchy import Hierarchy
from bigain.classify.pairing import LOSSES, Scoring, noised, paired_noise, predictions
from bigain.classify.prediction import Prediction
from bigain.classify.racing import Racing

__all__ = [
    "LOSSES",
    "Ask",
    "Contest",
    "DiffusionClassifier",
    "Elimination",
    "Fitted",
    "Hierarchy",
    "Prediction",
    "Racing",
    "Scoring",
    "Stages",
    "elimination_of",
    "noised",
    "paired_noise",
    "predictions",
]
