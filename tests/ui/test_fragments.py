"""What the page says is escaped, and complete."""

from __future__ import annotations

import numpy as np

from bigain.ui import fragments
from bigain.ui.classify import Race, Standing, Verdict
from bigain.ui.compress import Comparison, Side

EVIL = "<script>alert('x')</script>"


def test_what_users_write_is_escaped() -> None:
    race = Race((100, 300), (Standing(EVIL, 0.0, (0.0, None), True), Standing("b", 1e-3, (1e-3, None), False)), 2)
    said = fragments.verdict(Verdict(125, race, race))
    assert EVIL not in said
    assert said.count("&lt;script&gt;") == 2
    assert said.count("out after 1") == 2
    assert EVIL not in fragments.facts([(EVIL, EVIL)])


def test_progress_then_figures() -> None:
    known = Comparison("lgtm:ratio=0.5", 20, 0.25, Side(3))
    assert 'value="3" max="20"' in fragments.comparison(known)
    image = np.zeros((2, 2, 3), np.uint8)
    whole = Comparison("lgtm:ratio=0.5", 20, 0.25, Side(20, 2.0, image), Side(20, 1.0, image))
    said = fragments.comparison(whole)
    assert "2.00 → 1.00 (2.00×" in said
    assert "no pixel differs" in said
    assert "25.0%" in said
