"""The training of the small Wan: what small videos stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

import tokenizer as vocabulary
import train_video
from captions import VIDEO_WORDS


def test_tokens_of_a_small_video_lie_as_far_apart_as_what_they_stand_for() -> None:
    rope = WanTransformer3DModel(**train_video.WAN).rope
    small, large = torch.empty(2, 4, 3, 4, 6), torch.empty(1, 4, 9, 8, 12)
    for ours, whole in zip(train_video.Spaced(rope, 4, 2)(small), rope(large), strict=True):
        places = [(4 * frame, 2 * row, 2 * column) for frame in range(3) for row in range(2) for column in range(3)]
        expected = torch.stack([whole[0, (frame * 4 + row) * 6 + column] for frame, row, column in places])
        assert torch.equal(ours[0], expected)
    for ours, own in zip(train_video.Spaced(rope, 1, 1)(large), rope(large), strict=True):
        assert torch.equal(ours, own)


def test_each_frame_may_have_a_noise_level_of_its_own() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = vocabulary.build_t5(VIDEO_WORDS, train_video.LENGTH)
        model = train_video.TextToVideo(tokenizer)
        latents = torch.randn(2, 4, 3, 4, 6)
    read = tokenizer(["a video of the letter A", "up"], padding=True, return_tensors="pt")
    level = torch.tensor([0.3, 0.8])

    def velocity(level: Tensor) -> Tensor:
        with torch.no_grad():
            return model(latents, level, read.input_ids, read.attention_mask)

    same = velocity(level)
    torch.testing.assert_close(velocity(level[:, None].expand(2, 3)), same)
    apart = velocity(torch.tensor([[0.3, 0.3, 0.9], [0.8, 0.8, 0.8]]))
    torch.testing.assert_close(apart[1], same[1])
    changed = (apart[0] - same[0]).square().mean((0, 2, 3))
    assert changed.argmax() == 2  # the frame whose level is another
    assert changed.min() > 0  # which all frames attend to


def test_options_that_do_not_fit_are_refused(train: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train("train_video", "--size", 32, "--for-size", 48)
    assert "not 32, 48" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train("train_video", "--frames", 4, "--for-frames", 9)
    assert "not 4, 9" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train("train_video", "--shift", 0)
    assert "--shift must be above 0, not 0.0" in capsys.readouterr().err
    for options in (("--apart", 1.5), ("--apart", 0.5, "--frames", 1)):
        with pytest.raises(SystemExit):
            train("train_video", *options)
        assert f"--apart must be from 0 to 1, and 0 for stills, not {options[1]}" in capsys.readouterr().err
