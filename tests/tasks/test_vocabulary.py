import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seqbench.tasks import vocabulary
from seqbench.tasks.vocabulary import REPLACEMENT, Vocabulary

KOREAN = "".join(map(chr, range(0xAC00, 0xAC00 + 1000)))


def test_ids_are_the_sorted_characters_after_the_unknown_one():
    words = Vocabulary.from_text("hello")
    assert words.characters == REPLACEMENT + "ehlo"
    assert words.encode("hello").tolist() == [2, 1, 3, 3, 4]
    assert len(words) == 5


@given(st.text(), st.text())
@example(f"a{REPLACEMENT}🙂", f"{REPLACEMENT}b")
@example("a", f"{REPLACEMENT}b")
def test_known_characters_survive_and_unknown_ones_become_id_0(train, other):
    words = Vocabulary.from_text(train)
    ids = words.encode(train + other)
    known = [c if c in train else REPLACEMENT for c in train + other]
    assert words.decode(ids) == "".join(known)
    assert [i == 0 for i in ids] == [c not in train for c in train + other]
    assert words.unknown_count(other) == sum(c not in train for c in other)
    assert Vocabulary.from_text(words.known).characters == words.characters


def test_a_text_longer_than_a_slice_is_encoded_whole(monkeypatch):
    text = "the quick brown fox"
    words = Vocabulary.from_text(text)
    whole = words.encode(text)
    monkeypatch.setattr(vocabulary, "SLICE", 4)
    np.testing.assert_array_equal(words.encode(text), whole)


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        (KOREAN[:255], np.uint8),
        (KOREAN[:256], np.int16),
        ("".join(map(chr, range(0x4E00, 0x4E00 + 32767))), np.int16),
        ("".join(map(chr, range(0x4E00, 0x4E00 + 32768))), np.int32),
    ],
)
def test_ids_are_as_small_as_can_be_and_never_wrap(text, dtype):
    ids = Vocabulary.from_text(text).encode(text)
    assert ids.dtype == dtype
    np.testing.assert_array_equal(ids, np.arange(1, len(text) + 1))


def test_a_vocabulary_of_its_own_characters_has_no_id_to_spare():
    letters = Vocabulary("abc")
    assert letters.encode("cab").tolist() == [2, 0, 1]
    assert letters.unknown_count("abacus") == 2


def test_state_survives_json():
    words = Vocabulary.from_text("a b\n한글🙂")
    copy = Vocabulary.from_state(json.loads(json.dumps(words.state())))
    assert copy.characters == words.characters


def test_a_lone_surrogate_in_a_prompt_is_unknown():
    assert Vocabulary.from_text("ab").encode("a\udcff").tolist() == [1, 0]


def test_nothing_encodes_to_nothing():
    ids = Vocabulary.from_text("ab").encode("")
    assert ids.shape == (0,)
    assert ids.dtype == np.uint8
