"""Sampling with a seed per image."""

from bigain.generate.sampling import SAMPLERS, sample

__all__ = ["SAMPLERS", "sample"]
