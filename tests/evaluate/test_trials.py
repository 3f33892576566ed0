"""Targets, the front and the choice."""

from __future__ import annotations

import pytest

from bigain.evaluate import Target, Trial, choose, front, parse_target

FAST = Trial("fast", 2.0, 0.5, -0.4, 10.0)
MIDDLE = Trial("middle", 1.5, 0.8, -0.1, 20.0)
TRUE = Trial("true", 1.1, 0.9, 0.0, 30.0)
WORSE = Trial("worse", 1.4, 0.7, -0.2, 15.0)  # than the middle one in everything
ALL = [WORSE, FAST, TRUE, MIDDLE]


def test_the_front_is_what_nothing_beats() -> None:
    assert front(ALL) == [FAST, MIDDLE, TRUE]
    assert front([FAST, FAST]) == [FAST, FAST]


@pytest.mark.parametrize(
    ("targets", "chosen"),
    [
        (["speed-up=1.2"], MIDDLE),
        (["speed-up=1"], TRUE),
        (["accuracy-loss=10"], MIDDLE),
        (["accuracy-loss=0"], TRUE),
        (["accuracy-loss=100"], FAST),
        (["psnr=15"], MIDDLE),
        (["psnr=15", "accuracy-loss=5"], TRUE),
        (["speed-up=1.2", "psnr=15"], MIDDLE),
    ],
)
def test_the_choice_keeps_all_targets_at_the_best_that_is_left(targets: list[str], chosen: Trial) -> None:
    assert choose(ALL, [parse_target(text) for text in targets]) is chosen


def test_a_tie_in_accuracy_goes_to_the_higher_psnr() -> None:
    rough, close = Trial("rough", 1.3, 0.9, 0.0, 12.0), Trial("close", 1.2, 0.9, 0.0, 25.0)
    assert choose([rough, close], [Target("speed-up", 1.1)]) is close


def test_what_is_slower_than_no_compression_is_never_chosen() -> None:
    slow = Trial("slow", 0.7, 0.9, 0.0, 30.0)
    with pytest.raises(ValueError, match="and is faster than no compression"):
        choose([slow], [Target("accuracy-loss", 2)])
    assert choose([slow, FAST], [Target("accuracy-loss", 50)]) is FAST


def test_a_target_that_nothing_keeps_says_what_came_near() -> None:
    with pytest.raises(
        ValueError, match=r"no trial of 4 keeps speed-up=3 and .*fast \(speed-up 2.00, accuracy -40.0 points"
    ):
        choose(ALL, [Target("speed-up", 3)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed", "written KIND=NUMBER"),
        ("speed-up=fast", "written KIND=NUMBER"),
        ("speed-up=-1", "written KIND=NUMBER"),
        ("speed-up=0.5", "speed-up must be at least 1, not 0.5"),
        ("fid=3", "one of speed-up, accuracy-loss, psnr, not 'fid'"),
    ],
)
def test_a_target_that_is_none_is_named(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_target(text)
