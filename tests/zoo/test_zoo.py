"""Embedded models are found by name, and what is missing is named."""

from __future__ import annotations

import pytest

from bigain import zoo


def test_names_are_sorted_and_known():
    denoisers = ("glyphs-dit", "glyphs-dit-64", "glyphs-flux", "glyphs-sd", "glyphs-video")
    assert zoo.denoisers() == denoisers
    assert zoo.names() == tuple(sorted((*denoisers, "glyphs-recogniser")))


@pytest.mark.parametrize("name", zoo.names())
def test_every_model_ships_with_a_card_and_in_small_files(name):
    folder = zoo.path(name)
    assert zoo.path(name.replace("-", "_")) == folder
    assert (folder / "README.md").is_file()
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    assert max(sizes) <= 10 * 2**20
    assert sum(sizes) <= 40 * 2**20
    assert not [file for file in folder.rglob("*") if file.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"glyphs-dit, .*, glyphs-video, not 'glyphs-vae'"):
        zoo.path("glyphs-vae")


@pytest.mark.parametrize("name", zoo.names())
def test_a_missing_file_is_named_with_the_command_that_makes_it(name, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_ROOT", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"(config|model_index)\.json.*`(python training/train_\w+\.py|make train)"
    ):
        zoo.path(name)
