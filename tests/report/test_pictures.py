"""The files of a run: that they are drawn, repeat, and put pixels where they belong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigain.methods import preset_names
from bigain.report import pictures
from bigain.report.pictures import draw_front, draw_samples, write_folder
from bigain.report.style import label
from bigain.run.results import Results, Row, read_results
from bigain.run.store import Store
from bigain.run.summary import summarise, timings


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_front_is_drawn_and_repeats(known_store: Store, tmp_path: Path) -> None:
    results, times = summarise(known_store), timings(known_store)
    for name in ("a.png", "b.png"):
        draw_front(results, times, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert opened(tmp_path / "a.png").std() > 0


def test_a_front_leaves_out_what_was_not_measured(known_store: Store, tmp_path: Path) -> None:
    results = summarise(known_store)
    rows = tuple(dataclasses.replace(row, fid=None) for row in results.rows)
    draw_front(results, None, tmp_path / "all.png")
    draw_front(dataclasses.replace(results, rows=rows), None, tmp_path / "one.png")
    assert opened(tmp_path / "one.png").shape[1] < opened(tmp_path / "all.png").shape[1]
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_front(dataclasses.replace(results, rows=(Row(method="none"),)), None, tmp_path / "none.png")


def test_a_front_shows_accuracy_then_time_and_savings_as_a_share(known_store: Store) -> None:
    results, times = summarise(known_store), timings(known_store)
    front, *by_time, by_flops, _ = pictures._panels(results, times)
    assert [panel.y_label for panel in (front, *by_time)] == ["accuracy, % (higher is better)"] * 2 + [
        "FID (lower is better)"
    ]
    for panel in by_time:
        assert [panel.x[row.method] for row in results.rows] == [3.0, 1.5]
    plain, todo = results.rows
    assert (by_flops.x[plain.method], by_flops.x[todo.method]) == (0.0, pytest.approx(10))
    assert not any(panel.x for panel in pictures._panels(results, None)[1:3])


def test_families_differ_in_colour_or_marker() -> None:
    variants = ("tome:ratio=0.5,destinations=random", "tome:ratio=0.5,destinations=random,redraw=forward")
    specs = ("none", *preset_names(), *variants, "iekvd:factor=2,alpha=0.8>1.2", "lgtm-0.5+todo-2", "abm-0.5+todo-2")
    by_family = pictures._styles([Row(method=spec) for spec in specs])
    assert by_family.keys() == {label(spec).family for spec in specs}
    assert len(set(by_family.values())) == len(by_family)
    shared = {by_family[label(text).family].colour for text in ("tome-0.5", *variants)}
    assert len(shared) == 1, "a method has one colour"


def test_samples_stand_in_their_row_and_column(tmp_path: Path) -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], dtype=np.uint8)
    rows = [(f"method {r}", [np.full((1, 8, 8, 3), colours[r, c]) for c in range(2)]) for r in range(2)]
    page = opened(draw_samples(rows, ["A", "B"], tmp_path / "page", "title"))
    centres = {}
    for r in range(2):
        for c in range(2):
            found = np.argwhere((page == colours[r, c]).all(axis=2))
            assert len(found) > 1000
            centres[r, c] = found.mean(axis=0)
    assert centres[0, 0][0] == pytest.approx(centres[0, 1][0], abs=1)
    assert centres[0, 0][1] == pytest.approx(centres[1, 0][1], abs=1)
    assert centres[0, 0][0] < centres[1, 0][0]
    assert centres[0, 0][1] < centres[0, 1][1]


def test_a_long_label_is_wrapped(tmp_path: Path) -> None:
    widths = []
    for name in ("x" * 44, " ".join(["method"] * 60)):
        page = draw_samples([(name, [np.zeros((1, 8, 8, 3), np.uint8)])], ["A"], tmp_path / "page", "title")
        widths.append(opened(page).shape[1])
    assert 0.8 * widths[0] < widths[1] <= widths[0]


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_a_title_stays_on_the_page(tmp_path: Path, columns: int) -> None:
    row = ("none", [np.full((1, 8, 8, 3), 255, np.uint8)] * columns)
    title = "Each column starts from the same noise, and shows a frame of it"
    page = opened(draw_samples([row], ["A"] * columns, tmp_path / "page", title))
    assert (page[:, -4:] == 255).all(), "nothing is cut at the right"
    assert (page[:4] == 255).all(), "nor above"


def test_videos_play_side_by_side(tmp_path: Path) -> None:
    greys = [[0, 60, 120], [255, 180, 90]]
    videos = [np.stack([np.full((8, 8, 3), grey, np.uint8) for grey in own]) for own in greys]
    path = draw_samples([("none", videos)], ["A", "B"], tmp_path / "page", "title")
    assert path == tmp_path / "page.webp"
    with Image.open(path) as page:
        assert (page.n_frames, page.info["loop"]) == (3, 0)
        for frame in range(3):
            page.seek(frame)
            pixels = np.asarray(page.convert("RGB"))
            below = pixels[3 * len(pixels) // 4]
            for grey in (own[frame] for own in greys):
                assert (np.abs(below.astype(int) - grey).max(axis=1) <= 3).sum() > 50


def test_a_page_needs_an_image(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no image"):
        draw_samples([("none", [])], [], tmp_path / "page", "title")


def test_results_of_a_run_without_generation_still_have_a_front(known_store: Store, tmp_path: Path) -> None:
    results: Results = summarise(known_store)
    rows = tuple(dataclasses.replace(row, fid=None, generated=0, psnr=None) for row in results.rows)
    draw_front(dataclasses.replace(results, rows=rows), timings(known_store), tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 0


def test_all_files_are_written_and_repeat(known_store: Store, tmp_path: Path) -> None:
    written = write_folder(known_store, tmp_path / "a")
    write_folder(known_store, tmp_path / "b")
    names = {"results.json", "results.csv", "results.timings.json", "table.md"}
    names |= {"front.png", "samples.png", "confusion.png"}  # too few images for the reliability
    for folder in ("a", "b"):
        assert {file.name for file in (tmp_path / folder).iterdir()} == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert read_results(tmp_path / "a" / "results.json") == written


def test_a_run_without_images_has_no_pictures(tmp_path: Path) -> None:
    facts = {"data": "letters", "multi_label": False, "conditions": 1, "timesteps": [1]}
    identity = {"model": "m", "seed": 0, "dtype": "float32"}
    with Store.open(tmp_path / "r.sqlite", identity, facts) as store:
        store.add_methods(["none"])
        write_folder(store, tmp_path)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".csv", ".json", ".json", ".md", ".sqlite"]
