"""Data sets as sequences of images with classes, labels and prompts; the embedded glyphs among them."""

from bigain.data.collection import BadImageWarning, ImageCollection
from bigain.data.item import Entry, ImageData, Item
from bigain.data.loading import NAMES, load
from bigain.data.reading import BadImageError
from bigain.diffusion.images import preprocess

__all__ = [
    "NAMES",
    "BadImageError",
    "BadImageWarning",
    "Entry",
    "ImageCollection",
    "ImageData",
    "Item",
    "load",
    "preprocess",
]
