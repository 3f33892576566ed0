"""The diffusion classifier: paired noise, errors per condition and timestep, staged elimination."""

from bigain.classify.classifier import Classification, DiffusionClassifier
from bigain.classify.elimination import Stages
from bigain.classify.pairing import LOSSES, noised, paired_noise, predictions

__all__ = ["LOSSES", "Classification", "DiffusionClassifier", "Stages", "noised", "paired_noise", "predictions"]
