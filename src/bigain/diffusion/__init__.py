"""One interface over diffusion models: noising, prediction target and timesteps, conditions, images in and out."""

from bigain.diffusion.conditional import ClassConditional
from bigain.diffusion.denoiser import Conditions, Denoiser
from bigain.diffusion.opening import EMBEDDED, open_model
from bigain.diffusion.process import PREDICTIONS, Process, process_of

__all__ = [
    "EMBEDDED",
    "PREDICTIONS",
    "ClassConditional",
    "Conditions",
    "Denoiser",
    "Process",
    "open_model",
    "process_of",
]
