"""The tokenisers of the embedded text-to-image models."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer, T5Tokenizer

from bigain.data.glyphs import CLASSES
from bigain.data.scenes import PLACES, Placed, describe
from captions import WORDS, enumerate_letters
from tokenizer import build, build_t5, merges_for

PRINTABLE = "".join(sorted(set(string.printable) - set(string.whitespace)))


TOKENIZER: CLIPTokenizer = build()


def test_every_word_of_a_caption_is_one_token() -> None:
    for word in WORDS:
        assert TOKENIZER.tokenize(word) == [word.lower() + "</w>"]


def test_the_longest_caption_fits() -> None:
    full = describe([Placed(letter, "orange", place) for letter, place in zip("ABEG", PLACES, strict=True)])
    ids = TOKENIZER(full).input_ids
    assert len(ids) == 40 <= TOKENIZER.model_max_length == 48
    assert len(ids) == 2 + len(full.split())


def test_start_end_and_padding() -> None:
    start, end = TOKENIZER.convert_tokens_to_ids(["<|startoftext|>", "<|endoftext|>"])
    assert (TOKENIZER.bos_token_id, TOKENIZER.eos_token_id, TOKENIZER.pad_token_id) == (start, end, end)
    ids = TOKENIZER("a photo", padding="max_length", truncation=True).input_ids
    assert len(ids) == 48
    assert ids[0] == start
    assert ids[3:] == [end] * 45
    assert TOKENIZER("").input_ids == [start, end]


def test_ids_count_from_0_without_a_gap_and_the_vocabulary_is_small() -> None:
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(len(TOKENIZER)))
    assert len(TOKENIZER) < 1_000
    assert TOKENIZER.eos_token_id == len(TOKENIZER) - 1


def test_case_does_not_matter() -> None:
    caption = enumerate_letters(CLASSES)
    assert TOKENIZER(caption).input_ids == TOKENIZER(caption.upper()).input_ids


@settings(max_examples=200, deadline=None)
@given(st.text(PRINTABLE + " \t\n", max_size=30).filter(lambda text: "<|" not in text))
def test_nothing_of_an_ascii_prompt_is_dropped(text: str) -> None:
    pieces = TOKENIZER.tokenize(text)
    assert "".join(piece.removesuffix("</w>") for piece in pieces) == "".join(text.lower().split())
    assert TOKENIZER.unk_token not in pieces


@pytest.mark.parametrize("text", ["naïve", "Ångström", "日本", "🙂", "\x00\x7f", "İstanbul"])
def test_any_byte_has_a_token(text: str) -> None:
    pieces = TOKENIZER.tokenize(text)
    assert len(pieces) >= len(text)
    assert TOKENIZER.unk_token not in pieces


def test_unknown_words_fall_apart() -> None:
    assert TOKENIZER.tokenize("zinc") == ["z", "i", "n", "c</w>"]
    assert len(TOKENIZER.tokenize("reds")) > 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=8), min_size=1, max_size=8))
def test_merges_make_any_words_whole(words: list[str]) -> None:
    merges = merges_for(words)
    assert len(set(merges)) == len(merges)
    tokens = [*"abc", *(f"{letter}</w>" for letter in "abc"), *(left + right for left, right in merges), "<|x|>"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, unk_token="<|x|>", bos_token="<|x|>", eos_token="<|x|>")
    for word in words:
        assert tokenizer.tokenize(word) == [f"{word}</w>"]


@pytest.mark.parametrize("prompt", ["a photo of the letter A", "Two lemons, 12 limes!", " and ".join(WORDS)])
def test_what_is_saved_is_what_is_loaded(prompt: str, tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 100_000
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == TOKENIZER.get_vocab()
    assert loaded.model_max_length == 48
    assert loaded.pad_token == TOKENIZER.pad_token
    assert loaded(prompt).input_ids == TOKENIZER(prompt).input_ids


def test_two_builds_agree() -> None:
    assert build().get_vocab() == TOKENIZER.get_vocab()


T5: T5Tokenizer = build_t5()


def test_every_word_of_a_caption_is_one_token_of_t5() -> None:
    for word in WORDS:
        assert T5.tokenize(word) == [f"▁{word}"]
    assert T5("").input_ids == [T5.eos_token_id]
    assert T5.tokenize("A") != T5.tokenize("a")


@settings(max_examples=200, deadline=None)
@given(st.text(PRINTABLE + " ", max_size=30).filter(lambda text: "<" not in text))
def test_t5_drops_nothing_of_an_ascii_prompt(text: str) -> None:
    pieces = T5.tokenize(text)
    assert "".join(pieces).replace("▁", "") == "".join(text.split())
    assert T5.unk_token not in pieces


def test_what_is_saved_of_t5_is_what_is_loaded(tmp_path: Path) -> None:
    T5.save_pretrained(tmp_path)
    loaded = T5Tokenizer.from_pretrained(tmp_path)
    prompt = "a photo of a red letter A at the top left, and a zebra"
    assert loaded(prompt).input_ids == T5(prompt).input_ids
    assert loaded.model_max_length == 48
