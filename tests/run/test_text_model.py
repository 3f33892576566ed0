"""The joint run on a text-conditional pipeline: prompts are the classes, guidance doubles the forwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModel

from bigain.data import load
from bigain.data.glyphs import CLASSES
from bigain.report import table
from bigain.run.engine import run
from bigain.run.settings import Settings
from bigain.run.store import Store
from bigain.run.summary import summarise


def test_prompts_of_a_csv_are_classified_and_generated(
    make_settings: Callable[..., Settings], pipeline_folder: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.csv"
    lines = [f"a letter {name},{name},{index}" for index, name in enumerate(CLASSES)]
    prompts.write_text("\n".join(["prompt,classname,classidx", *lines, f"an {CLASSES[3]},{CLASSES[3]},3"]))
    settings = make_settings(
        model=str(pipeline_folder),
        prompts_csv=str(prompts),
        methods=("lgtm-0.5", "todo-2"),
        classify=2,
        generate=3,
        to_keep=(2, 1),
        n_samples=(1, 2),
        steps=2,
        guidance=3.0,
        features="none",
        batch_size=4,
        timing_rounds=1,
        timing_batch=2,
    )
    run(settings, tmp_path / "r.sqlite")
    with Store(tmp_path / "r.sqlite") as store:
        found = summarise(store)
        first = next(store.classified("none"))
        asked = [row.condition for row in store.generated("todo:factor=2")]
        assert set(store.timing()[1]) == set(store.methods())
    assert asked == [f"a letter {name}" for name in CLASSES[:3]]
    assert first.errors.shape == (11, 2)
    assert sorted(first.ranking) == list(range(10))
    assert found.facts["forwards_per_classified_image"] == 11 + 2
    assert found.facts["forwards_per_generated_image"] == 4
    assert [(row.classified, row.generated) for row in found.rows] == [(2, 3)] * 3
    assert all(row.psnr is not None for row in found.rows[1:])


def test_a_tree_of_classes_is_part_of_what_cannot_change(
    make_settings: Callable[..., Settings], pipeline_folder: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree.json"
    tree.write_text(json.dumps({"vowel": ["A", "E"], "other": ["B", "G", "H", "K", "M", "R", "S", "X"]}))
    settings = make_settings(
        model=str(pipeline_folder), classify=2, generate=0, elimination=str(tree), n_samples=(3,), features="none",
        timing_rounds=0,
    )  # fmt: skip
    run(settings, tmp_path / "r.sqlite")
    with Store(tmp_path / "r.sqlite") as store:
        rows = list(store.classified("none"))
        results = summarise(store)
    assert {row.forwards for row in rows} <= {2 * 2 + 2, 2 * 2 + 8}
    assert all(row.errors.shape == (10, 3) for row in rows)
    assert "groups of tree.json, racing over 3 timesteps" in table.markdown(results, None)
    tree.write_text(json.dumps({"vowel": ["A", "E", "B"], "other": ["G", "H", "K", "M", "R", "S", "X"]}))
    with pytest.raises(ValueError, match="conditions is "):
        run(settings, tmp_path / "r.sqlite")


def test_results_of_another_text_encoder_are_refused(
    make_settings: Callable[..., Settings], pipeline_folder: Path, tmp_path: Path
) -> None:
    settings = make_settings(
        model=str(pipeline_folder), classify=1, generate=0, to_keep=(1,), n_samples=(1,), features="none",
        timing_rounds=0,
    )  # fmt: skip
    run(settings, tmp_path / "r.sqlite")
    encoder = CLIPTextModel.from_pretrained(pipeline_folder / "text_encoder")
    with torch.no_grad():
        encoder.get_input_embeddings().weight.add_(1)
    encoder.save_pretrained(pipeline_folder / "text_encoder")
    with pytest.raises(ValueError, match="weights is "):
        run(settings, tmp_path / "r.sqlite")


def test_scenes_are_classified_with_several_labels_and_generated_from_captions(
    make_settings: Callable[..., Settings], pipeline_folder: Path, tmp_path: Path
) -> None:
    settings = make_settings(
        model=str(pipeline_folder),
        data="glyphs-scenes",
        methods=("todo-2",),
        classify=3,
        generate=2,
        to_keep=(2, 1),
        n_samples=(1, 2),
        steps=1,
        features="none",
        timing_rounds=0,
    )
    run(settings, tmp_path / "r.sqlite")
    with Store(tmp_path / "r.sqlite") as store:
        row = summarise(store).rows[1]
        labels = [image.labels for image in store.classified("none")]
        asked = [image.condition for image in store.generated("none")]
        assert store.identity["guidance"] == 7.5
        assert store.identity["split"] == "test"
    entries = load("glyphs-scenes", image_size=32, limit=3).entries
    assert labels == [entry.labels for entry in entries]
    assert all(len(own) >= 2 for own in labels)
    assert asked == [entry.caption for entry in entries[:2]]
    assert row.class_map is not None
    assert row.image_ap is not None
