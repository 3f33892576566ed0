"""Sampling with a seed per image."""

from bigain.generate.sampling import SAMPLERS, USUAL_GUIDANCE, sample

__all__ = ["SAMPLERS", "USUAL_GUIDANCE", "sample"]
