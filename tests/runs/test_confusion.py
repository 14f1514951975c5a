"""Scores that are derived from a confusion matrix, against definitions of others."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.runs.confusion import ConfusionMatrix, read_confusion, write_confusion

PAIRS = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), min_size=1, max_size=40),
    )
)


def matrix_of(classes: int, pairs: list[tuple[int, int]]) -> ConfusionMatrix:
    counts = np.zeros((classes, classes), int)
    for true, predicted in pairs:
        counts[true, predicted] += 1
    return ConfusionMatrix(counts.tolist())


@given(PAIRS)
@settings(max_examples=200)
def test_scores_are_those_of_the_examples(drawn):
    classes, pairs = drawn
    true, predicted = np.array(pairs).T
    matrix = matrix_of(classes, pairs)
    assert matrix.accuracy == pytest.approx((true == predicted).mean())
    # By the definitions, example by example, of classes that occur.
    recalls = {c: (predicted[true == c] == c).mean() for c in set(true.tolist())}
    assert matrix.balanced_accuracy == pytest.approx(np.mean(list(recalls.values())))
    assert matrix.recalls == [
        pytest.approx(recalls[c]) if c in recalls else None for c in range(classes)
    ]
    f1 = []
    for c in set(true.tolist()) | set(predicted.tolist()):
        hits = ((true == c) & (predicted == c)).sum()
        precision = hits / max(1, (predicted == c).sum())
        recall = hits / max(1, (true == c).sum())
        f1.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    assert matrix.macro_f1 == pytest.approx(np.mean(f1))


@given(PAIRS)
@settings(max_examples=50)
@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@pytest.mark.filterwarnings("ignore:A single label")
def test_scores_are_those_of_scikit_learn(drawn):
    metrics = pytest.importorskip("sklearn.metrics")
    classes, pairs = drawn
    true, predicted = zip(*pairs, strict=True)
    matrix = matrix_of(classes, pairs)
    assert (
        metrics.confusion_matrix(true, predicted, labels=range(classes)).tolist() == matrix.counts
    )
    assert matrix.balanced_accuracy == pytest.approx(
        metrics.balanced_accuracy_score(true, predicted)
    )
    f1 = metrics.f1_score(true, predicted, average="macro", zero_division=0)
    assert matrix.macro_f1 == pytest.approx(f1)


def test_a_matrix_without_examples_has_no_scores():
    empty = ConfusionMatrix([[0, 0], [0, 0]])
    scores = (empty.accuracy, empty.balanced_accuracy, empty.macro_f1)
    assert all(map(math.isnan, scores))
    assert empty.mistakes(5) == []


def test_mistakes_are_ordered_by_their_number():
    matrix = ConfusionMatrix([[5, 1, 4], [0, 0, 7], [4, 0, 9]])
    assert matrix.mistakes(3) == [(1, 2, 7), (0, 2, 4), (2, 0, 4)]


def test_a_matrix_survives_its_file(tmp_path):
    matrix = ConfusionMatrix([[5, 1], [0, 2**40]])
    for kept in (matrix, replace(matrix, classes=["ja", '"nein"'])):
        write_confusion(tmp_path / "confusion.json", kept)
        assert read_confusion(tmp_path / "confusion.json") == kept
    kept = {"classes": ["ja", '"nein"'], "counts": matrix.counts}
    assert json.loads((tmp_path / "confusion.json").read_text()) == kept


NOT_A_MATRIX = (
    *(b"", b"{}", b"[]", b"[[1,2]]", b"[[1],[2]]", b"[[-1]]", b"[[1.5]]", b"[[true]]", b"[[1]"),
    *(b'[["1"]]', b"[[1e999]]", b"[[NaN]]", b"\xff", b"[" * 5000, b"[[9223372036854775808]]"),
)


@pytest.mark.parametrize("content", NOT_A_MATRIX)
def test_a_file_that_holds_something_else_is_no_matrix(tmp_path, content):
    (tmp_path / "confusion.json").write_bytes(content)
    assert read_confusion(tmp_path / "confusion.json") is None


def test_links_and_folders_are_not_read(tmp_path):
    write_confusion(tmp_path / "elsewhere", ConfusionMatrix([[1]]))
    (tmp_path / "confusion.json").symlink_to(tmp_path / "elsewhere")
    assert read_confusion(tmp_path / "confusion.json") is None
    assert read_confusion(tmp_path) is None
    assert read_confusion(tmp_path / "missing") is None
