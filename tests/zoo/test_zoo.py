"""Embedded models are found by name, and what is missing is named."""

from __future__ import annotations

import pytest

from bigain import zoo


def test_names_are_sorted_and_known():
    assert zoo.names() == ("glyphs-dit", "glyphs-recogniser")


def test_the_recogniser_ships_with_weights_and_a_card():
    folder = zoo.path("glyphs-recogniser")
    assert {file.name for file in folder.iterdir()} >= {"config.json", "model.safetensors", "README.md"}
    assert zoo.path("glyphs_recogniser") == folder


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"glyphs-dit, glyphs-recogniser, not 'glyphs-vae'"):
        zoo.path("glyphs-vae")


@pytest.mark.parametrize("name", zoo.names())
def test_a_missing_file_is_named_with_the_command_that_makes_it(name, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.json.*python training/train_\w+\.py"):
        zoo.path(name)
