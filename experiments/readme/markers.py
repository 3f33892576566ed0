"""Named parts of a text file that a command rewrites: what lies between two markers."""

from __future__ import annotations

from pathlib import Path

from bigain.run.files import write_whole


def has_markers(path: Path, name: str) -> bool:
    """Whether the file has a place for ``put_between``."""
    return f"<!-- {name}: begin -->" in path.read_text(encoding="utf-8")


def put_between(path: Path, name: str, content: str) -> None:
    """Puts ``content`` between the markers ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``, for what is there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not have each marker once, in order.
    """
    first, last = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, begin, rest = path.read_text(encoding="utf-8").partition(first)
    _, end, tail = rest.partition(last)
    if not begin or not end or any(marker in head + tail for marker in (first, last)):
        raise ValueError(f"{path} must have the line {first} and, below it, the line {last}, each once")
    write_whole(path, f"{head}{first}\n\n{content.strip()}\n\n{last}{tail}")
