import json
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seqbench.errors import ConfigError
from seqbench.tasks import byte_pairs
from seqbench.tasks.byte_pairs import BYTES, BytePairs

SYLLABLES = ("the", "cat", "sat", "on", "mat", "and", "dog", "log")
WORDS = [a + b for a in SYLLABLES for b in SYLLABLES] * 9
TRAIN = " ".join(WORDS) + ", 1999 and 2024.\n    the dog sat <0x41> <unk> on 한글 the log!\n" * 40


TOKENS = BytePairs.from_text(TRAIN, 340)


@given(st.text(st.characters(codec="utf-8")))
@example("the <0x0A> cat ▁ <unk>\r\n\t é한🙂\ufffd  \n\n 12٣")
@example(TRAIN)
def test_every_text_survives(text):
    ids = TOKENS.encode(text)
    assert TOKENS.decode(ids) == text
    assert TOKENS.unknown_count(text) == 0


@given(st.text(st.characters(codec="utf-8")))
def test_spans_cover_the_text(text):
    sizes, unknown = TOKENS.spans(text)
    assert len(sizes) == len(unknown) == len(TOKENS.encode(text))
    assert sizes.sum() == len(text)
    assert (sizes >= 0).all()
    assert not unknown.any()


def test_slices_do_not_change_tokens(monkeypatch):
    ids, (sizes, _) = TOKENS.encode(TRAIN), TOKENS.spans(TRAIN)
    monkeypatch.setattr(byte_pairs, "SLICE", 7)
    np.testing.assert_array_equal(TOKENS.encode(TRAIN), ids)
    np.testing.assert_array_equal(TOKENS.spans(TRAIN)[0], sizes)


def test_the_vocabulary_has_bytes_first_and_the_size_that_was_asked_for():
    assert len(TOKENS) == 340
    assert TOKENS.names[:256] == BYTES
    assert " the" in TOKENS.names
    assert len(set(TOKENS.names)) == 340


def test_no_token_crosses_a_digit_a_line_end_or_a_sign():
    for name in TOKENS.names[256:]:
        assert len(name) == 1 or not any(c.isdigit() or c == "\n" for c in name)
        assert not (any(c.isalpha() for c in name) and any(c in ",.!<>" for c in name))
    assert len(TOKENS.encode("2024")) == 4


def test_a_character_outside_the_vocabulary_is_its_bytes():
    assert TOKENS.encode("é").tolist() == [0xC3, 0xA9]
    assert TOKENS.spans("é")[0].tolist() == [1, 0]
    assert TOKENS.decode([0xC3]) == "\ufffd"


def test_the_smallest_vocabulary_has_bytes_only():
    few = BytePairs.from_text(TRAIN, 256)
    assert few.names == BYTES
    assert few.decode(few.encode(TRAIN)) == TRAIN


def test_the_same_text_gives_the_same_tokenizer_and_its_state_survives_json():
    state = json.dumps(TOKENS.state())
    assert json.dumps(BytePairs.from_text(TRAIN, 340).state()) == state
    copy = BytePairs.from_state(json.loads(state))
    assert json.dumps(copy.state()) == state
    assert copy.encode(TRAIN).tolist() == TOKENS.encode(TRAIN).tolist()


def test_merges_are_of_the_text_that_is_given():
    assert " the" not in BytePairs.from_text("a b c d e\n" * 40, 340).names


def test_a_lone_surrogate_in_a_prompt_is_unknown():
    assert TOKENS.unknown_count("a\udcff") == 1
    assert TOKENS.decode(TOKENS.encode("a\udcff")) == "a\ufffd"


def test_what_is_no_tokenizer_raises():
    with pytest.raises(ValueError, match="no tokenizer"):
        BytePairs.from_state({"model": 1})


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install 'seqbench\[text\]'"):
        BytePairs.from_text(TRAIN, 340)
