"""Files that are whole: one writer that is never caught half-way, and JSON files that say what they are."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is either the old or the new one, whenever the process is killed."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)


def write_json(path: Path, form: str, content: dict[str, Any]) -> None:
    """Writes a JSON file whose field "format" is ``form``; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"format": form, **content}, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, form: str) -> dict[str, Any]:
    """Reads what ``write_json`` wrote, without its format.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is not JSON, not an object, or of another format; names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8, and brackets without end
        raise ValueError(f"{path} must be a JSON file of format {form!r}, not this: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object of format {form!r}, not a {type(content).__name__}")
    if content.get("format") != form:
        raise ValueError(f"{path} must have the format {form!r}, not {content.get('format')!r}")
    return {name: value for name, value in content.items() if name != "format"}


def encode_png(image: Any) -> bytes:
    """uint8 (H, W, 3) as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
