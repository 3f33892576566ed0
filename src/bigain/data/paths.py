"""Finding files under a data set's root, and refusing what lies outside it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from bigain.data.reading import SUFFIXES


def inside(root: Path, text: str, source: str) -> Path:
    """``root / text``, where ``text`` was read from a file and may say anything.

    The check is of the text alone: a symbolic link under the root may lead out of it, as links made by the
    user of a data set often do.

    Args:
        root: the folder that must not be left.
        text: a relative path with ``/`` between its parts.
        source: file and line the text comes from, for the error.

    Raises:
        ValueError: the text is empty, absolute (on POSIX or on Windows), or has a part ``..``.
    """
    posix, windows = PurePosixPath(text), PureWindowsPath(text)
    if not text.strip() or "\0" in text:
        raise ValueError(f"{source}: {text!r} is not a path")
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise ValueError(
            f"{source}: the path {text!r} leads out of the data set; paths must be relative to {root}, without '..'"
        )
    return root / posix


def require_folder(path: Path, layout: str) -> Path:
    """``path`` if it is a folder; else ``FileNotFoundError`` with the path and the expected layout."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder. Expected layout: {layout}")
    return path


def read_text(path: Path, layout: str) -> str:
    """The text of a UTF-8 file, less a byte order mark.

    Raises:
        FileNotFoundError: names the path and the expected layout.
        ValueError: the file is not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Expected layout: {layout}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error


def read_lines(path: Path, layout: str) -> list[tuple[int, str]]:
    """(line number from 1, stripped line) of a UTF-8 file, without blank lines and ``#`` comments."""
    lines = enumerate(read_text(path, layout).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]


def folders(root: Path) -> list[Path]:
    """The folders in ``root``, sorted by name, without hidden ones."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """The files in ``folder`` whose name ends like an image's (in any case), sorted, without hidden ones."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )
