"""What tests of runs compare."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], list[Any]]:
    """Everything in a results file that should repeat."""

    def read(path: Path) -> list[Any]:
        with sqlite3.connect(path, timeout=60) as connection:
            return [
                connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
                for table in ("method", "classification", "generation", "reference")
            ]

    return read
