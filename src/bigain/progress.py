"""The progress bar of all that takes long."""

from __future__ import annotations

import sys
from typing import Any


def progress_bar(total: int, shown: bool, **options: Any) -> Any:
    """A bar of tqdm, whose ``options`` they are; in a log file it adds a line every half minute."""
    from tqdm.auto import tqdm

    return tqdm(total=total, disable=not shown, mininterval=0.1 if sys.stderr.isatty() else 30, **options)
