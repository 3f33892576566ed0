"""The runs in experiments/ are files that `bigain evaluate --config` takes, tried on tiny models and small trees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import DDIMScheduler
from PIL import Image

from bigain.cli import app
from bigain.methods import parse
from bigain.run.results import read_results
from bigain.zoo.presets import text_of
from experiments.paper.compare import published

ROOT = Path(__file__).parents[2] / "experiments"
PAPER = sorted(path for path in (ROOT / "paper").glob("*.toml") if path.stem not in ("published", "claims"))
RUNS = sorted([*(ROOT / "results").glob("*.toml"), *(ROOT / "ablations").glob("*.toml"), *PAPER])
SMALL = ["--classify", "2", "--generate", "2", "--to-keep", "1", "--n-samples", "1", "--steps", "2", "--features",
         "none", "--timing-rounds", "0", "--dtype", "float32", "--quiet"]  # fmt: skip


def _image(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 48, 3), colour, dtype=np.uint8)).save(path)


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Two classes of the tree val/<wnid>/*.JPEG, with the names of both."""
    for number, wnid in enumerate(("n01440764", "n01443537")):
        for image in range(2):
            _image(tmp_path / "imagenet" / "val" / wnid / f"{image}.JPEG", 60 * number + 20 * image)
    mapping = "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n"
    (tmp_path / "imagenet" / "LOC_synset_mapping.txt").write_text(mapping)
    return tmp_path / "imagenet"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two breeds of Oxford-IIIT Pets."""
    lines = []
    for number, breed in enumerate(("Abyssinian", "beagle"), start=1):
        for image in range(2):
            _image(tmp_path / "pets" / "images" / f"{breed}_{image}.jpg", 60 * number + 20 * image)
            lines.append(f"{breed}_{image} {number} 1 1")
    (tmp_path / "pets" / "annotations").mkdir()
    (tmp_path / "pets" / "annotations" / "test.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "pets"


@pytest.mark.parametrize("path", RUNS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_run_names_methods_once(path: Path) -> None:
    import tomllib

    content = tomllib.loads(path.read_text(encoding="utf-8"))
    methods = [parse(text_of(text)).text for text in content["methods"]]
    assert len({*methods}) == len(methods)


@pytest.mark.parametrize("name", sorted(published()))
def test_every_published_figure_is_of_a_method_that_its_run_has(name: str) -> None:
    import tomllib

    content = tomllib.loads((ROOT / "paper" / f"{name}.toml").read_text(encoding="utf-8"))
    assert {*published()[name]} <= {"none", *(parse(text).text for text in content["methods"])}


@pytest.mark.parametrize("data", ["imagenet", "pets"])
def test_a_headline_run_of_stable_diffusion_works_on_a_small_tree(
    data: str, request: pytest.FixtureRequest, pipeline_folder: Path, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(data)
    arguments = ["evaluate", "--config", str(ROOT / "paper" / f"sd2-{data}.toml"), *SMALL]
    arguments += ["-m", "lgtm-0.5 iekvd-2", "--model", str(pipeline_folder), "--data", f"{data}:{folder}"]
    app([*arguments, "--out", str(tmp_path / "run")], standalone_mode=False)
    results, _ = read_results(tmp_path / "run" / "results.json")
    assert [row.classified for row in results.rows] == [row.generated for row in results.rows] == [2, 2, 2]
    assert results.settings["sampler"] == "euler"
    assert results.settings["guidance"] == 7.5


def test_a_headline_run_of_a_dit_works_on_a_small_tree(
    imagenet: Path, families: Callable[..., Any], tmp_path: Path
) -> None:
    families["dit"].build(num_embeds_ada_norm=2).save_pretrained(tmp_path / "dit" / "transformer")
    DDIMScheduler().save_pretrained(tmp_path / "dit" / "scheduler")
    arguments = ["evaluate", "--config", str(ROOT / "paper" / "dit-imagenet.toml"), *SMALL, "-m", "lgtm-0.5 iekvd-2"]
    arguments += ["--model", str(tmp_path / "dit"), "--data", f"imagenet:{imagenet}", "--out", str(tmp_path / "run")]
    app(arguments, standalone_mode=False)
    results, _ = read_results(tmp_path / "run" / "results.json")
    assert [row.classified for row in results.rows] == [2, 2, 2]
    assert results.settings["sampler"] == "ddim"
