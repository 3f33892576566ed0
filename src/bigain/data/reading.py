"""The files that are taken for images."""

from bigain.diffusion.images import FORMATS, BadImageError, read_image, to_rgb

__all__ = ["FORMATS", "SUFFIXES", "BadImageError", "read_image", "to_rgb"]

SUFFIXES: tuple[str, ...] = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
