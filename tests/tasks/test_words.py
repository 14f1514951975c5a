import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbench.tasks.words import Words

TEXT = " the cat sat \n the cat ran \n"


def test_ids_are_by_frequency_after_the_unknown_word_and_the_line_end():
    words = Words.from_text(TEXT)
    assert words.names == ["<unk>", "<eos>", "cat", "the", "ran", "sat"]
    assert words.encode("the dog\nsat").tolist() == [3, 0, 1, 5]
    assert words.unknown_count("the dog ate\n") == 2
    assert words.unwritten == [0]


def test_rare_words_are_left_out_and_the_most_frequent_ones_kept():
    assert Words.from_text(TEXT, min_count=2).names == ["<unk>", "<eos>", "cat", "the"]
    assert Words.from_text(TEXT, vocab_size=3).names == ["<unk>", "<eos>", "cat"]


def test_words_that_are_spelled_as_the_special_ones_are_these():
    words = Words.from_text("a <unk> b <eos>\n")
    assert words.names == ["<unk>", "<eos>", "a", "b"]
    assert words.unknown_count("a <unk> <eos> c") == 1


@given(st.text(st.characters(codec="utf-8")))
def test_a_text_survives_but_for_the_amount_of_white_space(text):
    words = Words.from_text(text)
    lines = [" ".join(re.findall(r"\S+", line)) for line in text.split("\n")]
    # A word `<eos>` is a line end.
    expected = re.sub(" ?<eos> ?", "\n", "\n".join(lines))
    assert words.decode(words.encode(text)) == expected
    copy = Words.from_state(json.loads(json.dumps(words.state())))
    assert copy.names == words.names


@given(st.text(), st.text())
def test_spans_cover_the_text_with_single_spaces(train, text):
    words = Words.from_text(train)
    sizes, unknown = words.spans(text)
    ids = words.encode(text)
    assert len(sizes) == len(unknown) == len(ids)
    assert sizes.sum() == (len(re.sub(r"[^\S\n]+", " ", text)) if len(ids) else 0)
    assert unknown.sum() == words.unknown_count(text)
    assert (ids[unknown] == 0).all()


def test_white_space_belongs_to_the_word_after_it_and_counts_once():
    sizes, unknown = Words.from_text(TEXT).spans("  the dog \n ran  ")
    assert sizes.tolist() == [4, 4, 2, 5]
    np.testing.assert_array_equal(unknown, [False, True, False, False])


def test_a_sequence_goes_on_after_a_word_with_a_space():
    words = Words.from_text(TEXT)
    assert words.decode([2], after=3) == " cat"
    assert words.decode([2], after=1) == words.decode([2]) == "cat"
    assert words.decode([1, 2], after=3) == "\ncat"


def test_an_unknown_word_is_spelled_with_the_characters_of_the_vocabulary():
    letters = set("<unk><eos>catthersn")
    assert Words.from_text(TEXT).spelling_bits == math.log2(len(letters) + 1)


@pytest.mark.parametrize("state", [["a", "b"], ["<unk>", "<eos>", "a", "a"]])
def test_what_is_no_vocabulary_raises(state):
    with pytest.raises(ValueError, match="distinct words"):
        Words.from_state(state)
