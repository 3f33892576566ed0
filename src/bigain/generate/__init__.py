"""Sampling with a seed per image."""

from bigain.generate.sampling import SAMPLERS, USUAL_GUIDANCE, Sampling, sample

__all__ = ["SAMPLERS", "USUAL_GUIDANCE", "Sampling", "sample"]
