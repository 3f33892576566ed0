"""The runs in experiments/ are files that `bigain evaluate --config` takes, tried on tiny models and small trees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from bigain.cli import app
from bigain.diffusion import open_model
from bigain.methods import parse
from bigain.run.results import read_results
from bigain.search.equal_flops import at_equal_flops
from bigain.zoo.presets import text_of
from experiments.paper.compare import published, tomllib

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


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two categories of COCO-2017, with captions."""
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(2)]
    for number in range(2):
        _image(tmp_path / "coco" / "val2017" / f"{number}.jpg", 40 * number)
    instances = {
        "images": images,
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
        "annotations": [{"id": n, "image_id": n, "category_id": (1, 3)[n], "iscrowd": 0} for n in range(2)],
    }
    captions = {"images": images, "annotations": [{"id": n, "image_id": n, "caption": f"a {n}"} for n in range(2)]}
    (tmp_path / "coco" / "annotations").mkdir()
    (tmp_path / "coco" / "annotations" / "instances_val2017.json").write_text(json.dumps(instances))
    (tmp_path / "coco" / "annotations" / "captions_val2017.json").write_text(json.dumps(captions))
    return tmp_path / "coco"


@pytest.fixture
def imagenet100(imagenet: Path) -> Path:
    """The same tree, with the file of the classes that take part beside it."""
    (imagenet.parent / "wnids.txt").write_text("n01440764\nn01443537\n")
    return imagenet


@pytest.mark.parametrize("path", RUNS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_run_names_methods_once(path: Path) -> None:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    methods = [parse(text_of(text)).text for text in content["methods"]]
    assert len({*methods}) == len(methods)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["glyphs-dit", "glyphs-sd"])
def test_the_merging_methods_of_the_results_take_the_flops_of_iekvd(name: str) -> None:
    content = tomllib.loads((ROOT / "results" / f"{name}.toml").read_text(encoding="utf-8"))
    methods = {parse(text_of(text)).text for text in content["methods"]}
    denoiser = open_model(name, dtype=getattr(torch, content["dtype"]))
    merging = ["tome:ratio=0.5,destinations=random", "lgtm-0.5", "abm-0.5", "sito-0.5"]
    [matched] = at_equal_flops(denoiser, merging, ["iekvd-2"]).values()
    assert {*matched} <= methods


@pytest.mark.parametrize("name", sorted(published()))
def test_every_published_figure_is_of_a_method_that_its_run_has(name: str) -> None:
    content = tomllib.loads((ROOT / "paper" / f"{name}.toml").read_text(encoding="utf-8"))
    assert {*published()[name]} <= {"none", *(parse(text).text for text in content["methods"])}


@pytest.mark.parametrize("data", ["imagenet", "imagenet100", "pets", "coco"])
def test_a_headline_run_of_stable_diffusion_works_on_a_small_tree(
    data: str, request: pytest.FixtureRequest, pipeline_folder: Path, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(data)
    arguments = ["evaluate", "--config", str(ROOT / "paper" / f"sd2-{data}.toml"), *SMALL]
    arguments += ["-m", "lgtm-0.5 iekvd-2", "--model", str(pipeline_folder), "--data", f"{data}:{folder}"]
    arguments += ["--classes", str(tmp_path / "wnids.txt")] if data == "imagenet100" else []
    app([*arguments, "--out", str(tmp_path / "run")], standalone_mode=False)
    results, _ = read_results(tmp_path / "run" / "results.json")
    assert [row.classified for row in results.rows] == [row.generated for row in results.rows] == [2, 2, 2]
    assert results.settings["sampler"] == "euler"
    assert results.settings["guidance"] == 7.5


@pytest.mark.parametrize("data", ["imagenet", "imagenet100"])
def test_a_headline_run_of_a_dit_works_on_a_small_tree(
    data: str, imagenet100: Path, families: Callable[..., Any], tmp_path: Path
) -> None:
    families["dit"].build(num_embeds_ada_norm=2).save_pretrained(tmp_path / "dit" / "transformer")
    DDIMScheduler().save_pretrained(tmp_path / "dit" / "scheduler")
    arguments = ["evaluate", "--config", str(ROOT / "paper" / f"dit-{data}.toml"), *SMALL, "-m", "lgtm-0.5 iekvd-2"]
    arguments += ["--classes", str(tmp_path / "wnids.txt")] if data == "imagenet100" else []
    arguments += ["--model", str(tmp_path / "dit"), "--data", f"{data}:{imagenet100}", "--out", str(tmp_path / "run")]
    app(arguments, standalone_mode=False)
    results, _ = read_results(tmp_path / "run" / "results.json")
    assert [row.classified for row in results.rows] == [2, 2, 2]
    assert results.settings["sampler"] == "ddim"
