"""What the site has beyond docs/: the reference, from the docstrings, and files from elsewhere in the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

import bigain

ROOT = Path(__file__).parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
PARTS = {"Apply": "bigain.backbones", "Classify": "bigain.classify", "Methods": "bigain.methods"}
OUTWARDS = re.compile(r"\]\(\.\./([^)#]+)")  # links from a page of docs/ to what is beside it


def on_files(files: Any, config: Any) -> Any:
    """Adds what the pages link to."""
    made = {name: (ROOT / file).read_text(encoding="utf-8") for file, name in PAGES.items()}
    made["reference.md"] = reference()
    for page in (ROOT / "docs").glob("*.md"):
        for target in OUTWARDS.findall(page.read_text(encoding="utf-8")):
            if target not in PAGES:
                made[placed(target)] = (ROOT / target).read_text(encoding="utf-8")
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links of the repository into those of the site."""
    if page.file.src_uri in PAGES.values():
        return re.sub(r"\]\(docs/", "](", markdown)
    return OUTWARDS.sub(lambda link: f"]({placed(link[1])}", markdown)


def placed(target: str) -> str:
    """Where a file of the repository lies on the site."""
    return PAGES.get(target, f"files/{target.rpartition('/')[2]}")


def reference() -> str:
    """The public names, by what they are for."""
    lines = ["# Reference", "", "What `import bigain` gives."]
    for heading, home in PARTS.items():
        names = [name for name in bigain.__all__ if bigain._HOMES[name] == home]
        lines += ["", f"## {heading}", *(f"\n::: {home}.{name}" for name in names)]
    return "\n".join(lines) + "\n"
