"""The tokenisers of the embedded text-to-image models: a CLIPTokenizer and a T5Tokenizer with the captions' words.

As in CLIP, text is lower-cased and any byte has a token, so no prompt is refused and nothing in it is dropped; a
word that no caption holds falls apart into pieces. The article "a" and the letter A are one token, as lower-casing
has it, and are told apart by the words around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer, T5Tokenizer

from captions import WORDS

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
SPACE = "▁"  # as T5 marks the beginning of a word
MAX_LENGTH = 48  # tokens with start and end; the longest caption, four letters with colour and place, has 40


def build() -> CLIPTokenizer:
    """The tokeniser. Ids: bytes, bytes that end a word, what their merges give, start, end (also the padding)."""
    merges = merges_for([word.lower() for word in WORDS])
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(byte + WORD_END for byte in alphabet), *(left + right for left, right in merges), START, END]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(dict.fromkeys(tokens))},
        merges=merges,
        model_max_length=MAX_LENGTH,
    )


def build_t5(words: Sequence[str] = WORDS, length: int = MAX_LENGTH) -> T5Tokenizer:
    """The tokeniser of a T5 encoder: words as they are, any other by its characters of ASCII, else <unk>."""
    letters = [SPACE, *map(chr, range(ord("!"), ord("~") + 1))]
    whole = dict.fromkeys((f"{SPACE}{word}" for word in words), -1.0)
    pieces = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0} | whole | dict.fromkeys(letters, -10.0)
    return T5Tokenizer(vocab=list(pieces.items()), extra_ids=0, model_max_length=length)


def merges_for(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, in the order of their rank, under which each word is one token.

    A word that the merges so far leave in pieces gets its first two pieces merged until it is whole. New merges rank
    behind all others, so they change nothing for a word that is whole without them.
    """
    merges: list[tuple[str, str]] = []
    for word in words:
        while len(pieces := _pieces(word, merges)) > 1:
            merges.append((pieces[0], pieces[1]))
    return merges


def _pieces(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """What byte-pair encoding makes of a word: the merge of lowest rank first, everywhere in the word."""
    pieces = [*word[:-1], word[-1] + WORD_END]
    rank = {pair: number for number, pair in enumerate(merges)}
    while pairs := set(pairwise(pieces)) & rank.keys():
        left, right = min(pairs, key=rank.__getitem__)
        joined: list[str] = []
        for piece in pieces:
            if piece == right and joined and joined[-1] == left:
                joined[-1] = left + right
            else:
                joined.append(piece)
        pieces = joined
    return pieces
