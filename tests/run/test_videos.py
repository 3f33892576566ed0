"""The joint run of a model of videos: letters that move, and animations in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bigain.cli import app
from bigain.data import load
from bigain.data.moving import MOVES
from bigain.metrics.distribution import mean_psnr
from bigain.run import engine
from bigain.run.results import read_results
from bigain.run.store import Store
from bigain.videos import encode_video


def evaluate(model: Path, out: Path, *arguments: str) -> None:
    asked = ["evaluate", "--model", str(model), "--image-size", "32", "--frames", "4", "-m", "avgpool-2", "--quiet"]
    few = ["--steps", "2", "--batch-size", "8", "--timing-rounds", "1", "--timing-batch", "1"]
    result = CliRunner().invoke(app, [*asked, *few, "--out", str(out), *arguments])
    if result.exit_code:
        raise ValueError(result.stderr)


@pytest.fixture
def model(flows, saved) -> Path:  # type: ignore[no-untyped-def]
    pipe = flows["wan of pixels"].build()
    pipe.tokenizer.model_max_length = 60  # of its usual 20 the classes are the same
    folder: Path = saved(pipe)
    return folder


def test_moving_letters(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "REFERENCE_IMAGES", 6)
    counts = ["--classify", "2", "--generate", "5", "--to-keep", "1", "--n-samples", "1"]
    evaluate(model, tmp_path, "--data", "glyphs-moving", *counts)
    results, times = read_results(tmp_path / "results.json")
    plain, pooled = results.rows
    assert results.facts["classes"] == list(MOVES)
    assert results.reference is not None
    assert results.reference["network"] == "glyphs-recogniser around the letter, mean over frames"
    assert (plain.classified, pooled.generated, pooled.psnr_images) == (2, 5, 5)
    assert None not in (pooled.accuracy, pooled.fid, pooled.precision, pooled.recognised)
    assert times is not None
    with Store(tmp_path / "results.sqlite") as store:
        ours, theirs = (np.stack([one.frames for one in store.generated(row.method)]) for row in results.rows)
    assert ours.shape == (5, 4, 32, 32, 3)
    assert pooled.psnr == pytest.approx(mean_psnr(ours.reshape(-1, 32, 32, 3), theirs.reshape(-1, 32, 32, 3)), abs=1e-4)
    assert (tmp_path / "samples.webp").is_file()


def test_animations_in_a_folder(model: Path, tmp_path: Path) -> None:
    data, videos = tmp_path / "data", load("glyphs-moving", image_size=32)
    for number, name in enumerate(["cat", "dog"]):
        (data / name).mkdir(parents=True)
        (data / name / "one.webp").write_bytes(encode_video(videos[number].image))
    evaluate(model, tmp_path / "out", "--data", f"folder:{data}", "--classify", "2", "--generate", "1")
    results, _ = read_results(tmp_path / "out" / "results.json")
    assert [row.classified for row in results.rows] == [2, 2]
    read = load(f"folder:{data}", image_size=32, frames=4)
    assert read[1].image.shape == (4, 32, 32, 3)


def test_a_model_of_videos_refuses_images(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a video must have the shape \(T, H, W, 3\), not \(32, 32, 3\)"):
        evaluate(model, tmp_path, "--data", "glyphs", "--classify", "1", "--generate", "0")
