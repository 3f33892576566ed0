"""Data sets as sequences of images with classes, labels and prompts; the embedded glyphs among them."""

from bigain.data.dataset import BadImageWarning, ImageCollection, Item, labelled
from bigain.data.loading import NAMES, load
from bigain.data.prompts import map_classes, read_prompts
from bigain.images import BadImageError, image_files, preprocess, read_image

__all__ = [
    "NAMES",
    "BadImageError",
    "BadImageWarning",
    "ImageCollection",
    "Item",
    "image_files",
    "labelled",
    "load",
    "map_classes",
    "preprocess",
    "read_image",
    "read_prompts",
]
