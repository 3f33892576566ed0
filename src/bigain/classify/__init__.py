"""The diffusion classifier: paired noise, errors per condition and timestep, staged elimination."""

from bigain.classify.classifier import Classification, DiffusionClassifier
from bigain.classify.elimination import Stages
from bigain.classify.losses import LOSSES
from bigain.classify.pairing import keyed_prediction, paired_noise

__all__ = ["LOSSES", "Classification", "DiffusionClassifier", "Stages", "keyed_prediction", "paired_noise"]
