"""What a folder's files say about a model, without its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bigain import zoo
from bigain.zoo.published import of_folder


@pytest.mark.parametrize(
    ("lengths", "text"),
    [((), None), ((77,), 77), ((77, 512), 512), ((77, 77, 256), 333), ((77, None), None)],
    ids=["no text", "Stable Diffusion", "FLUX", "Stable Diffusion 3", "no limit"],
)
def test_text_is_as_long_as_the_tokenisers_make_it(
    tmp_path: Path, lengths: tuple[int | None, ...], text: int | None
) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    for number, length in zip(("", "_2", "_3"), lengths, strict=False):
        folder = tmp_path / f"tokenizer{number}"
        folder.mkdir()
        (folder / "tokenizer_config.json").write_text(
            json.dumps({} if length is None else {"model_max_length": length})
        )
    assert of_folder(tmp_path).text == text


def test_embedded_models_have_the_text_of_their_captions() -> None:
    assert {name: of_folder(zoo.path(name)).text for name in zoo.denoisers()} == {
        "glyphs-dit": None,
        "glyphs-dit-64": None,
        "glyphs-flux": 48,
        "glyphs-sd": 48,
        "glyphs-video": 12,
    }
