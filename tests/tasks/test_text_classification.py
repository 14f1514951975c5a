"""Fewer training texts are nested and stratified, and leave validation and test as they are."""

import itertools

import numpy as np
import pytest
import torch

from seqbench.config.build import build
from seqbench.config.choices import read_choice
from seqbench.contracts.task import check_task
from seqbench.datasets.nsmc import load_nsmc
from seqbench.datasets.text import load_text
from seqbench.errors import ConfigError, DataError
from seqbench.spec import Classes, Tokens
from seqbench.tasks.class_splits import fewer


def built(task, data_dir=None, seed=0, **values):
    node = read_choice("task", task) | values
    return build("task", {"task": node}, batch_size=8, seed=seed, data_dir=data_dir)


@pytest.fixture
def classify(tmp_path):
    """Build the task of texts and labels."""

    def made(texts, labels, **values):
        path = tmp_path / "my.tsv"
        rows = [f"{text}\t{label}\n" for text, label in zip(texts, labels, strict=True)]
        path.write_text("".join(["text\tlabel\n", *rows]), encoding="utf-8")
        return built("sentiment_file", path=str(path), **values)

    return made


def reviews(count=120):
    """Return texts of different lengths in three classes, of which one is rare."""
    random = np.random.RandomState(0)
    letters = np.array(list("가나다라 abc"))
    texts = ["x" + "".join(random.choice(letters, random.randint(1, 30))) for _ in range(count)]
    return texts, ["rare" if i % 12 == 0 else ("good", "bad")[i % 2] for i in range(count)]


def test_a_smaller_training_set_is_part_of_a_larger_one_with_the_same_fractions():
    labels = ["good"] * 600 + ["bad"] * 390 + ["rare"] * 10
    rows = np.arange(0, 1000, 2)
    sizes = (3, 10, 50, 100, 250, 500)
    found = {size: fewer(labels, rows, size, 0) for size in sizes}
    for size, more in itertools.pairwise(sizes):
        assert set(found[size]) < set(found[more]) <= set(rows)
    for size, own in found.items():
        assert len(own) == size
        assert (np.diff(own) > 0).all()
        count = {name: sum(labels[i] == name for i in own) for name in ("good", "bad", "rare")}
        assert count["rare"] >= 1
        assert abs(count["good"] - 0.6 * size) <= 2
        assert abs(count["bad"] - 0.39 * size) <= 2
    assert set(fewer(labels, rows, 100, 1)) != set(found[100])
    assert fewer(labels, rows, None, 0) is rows
    for size in (2, 501):
        with pytest.raises(ConfigError, match=f"train_size={size}: expected 3, .* to 500"):
            fewer(labels, rows, size, 0)


def test_the_number_of_training_texts_changes_neither_the_other_splits_nor_the_model(classify):
    whole = classify(*reviews())
    few = classify(*reviews(), train_size=10, seed=3)
    assert few.notes["train_sequences"] == 10
    assert set(few.rows["train"].tolist()) < set(whole.rows["train"].tolist())
    for split in ("valid", "test"):
        assert torch.equal(few.rows[split], whole.rows[split])
        parts = [list(task.eval_batches(split)) for task in (few, whole)]
        for a, b in zip(*parts, strict=True):
            assert torch.equal(a.inputs, b.inputs)
    assert (few.spec, few.preprocessing()) == (whole.spec, whole.preprocessing())
    assert whole.spec.target == Classes(3)


def test_the_end_of_a_long_text_is_read_and_unknown_characters_are_counted(classify):
    texts = [f"{'시작 ' * 20}good끝{i % 7}" for i in range(60)]
    labels = [i % 2 for i in range(60)]
    task = classify(texts, labels, length=6)
    assert task.spec.input == Tokens(len(set("good끝0123456")) + 1)
    assert task.spec.length == 6
    assert not task.spec.variable_length
    vocabulary = task.features.vocabulary
    batch = task.train_batch(0)
    assert batch.lengths is None
    assert all(vocabulary.decode(row.tolist())[:5] == "good끝" for row in batch.inputs)
    assert {k: v for k, v in task.notes.items() if k.startswith("cut")} == {
        "cut_train": 36,
        "cut_valid": 12,
        "cut_test": 12,
    }
    known = classify(texts, labels, length=6, characters="god끝")
    assert known.notes["unknown_train"] == 36
    with pytest.raises(ConfigError, match=r"task\.length must be at least 1"):
        classify(texts, labels, length=0)


def test_evaluation_reads_each_text_once_padded_with_unknown_characters(classify):
    task = classify(*reviews())
    lengths, targets, read = [], [], []
    for batch in task.eval_batches("test"):
        assert batch.inputs.dtype == torch.int64
        for row, length in zip(batch.inputs, batch.lengths, strict=True):
            assert (row[length:] == 0).all()
            read.append(task.features.vocabulary.decode(row[:length].tolist()))
        lengths += batch.lengths.tolist()
        targets += [task.features.classes[i] for i in batch.targets]
    assert lengths == sorted(lengths)
    texts, labels = reviews()
    expected = [(texts[i], labels[i]) for i in task.rows["test"]]
    assert sorted(zip(read, targets, strict=True)) == sorted(expected)


def test_a_test_file_replaces_the_test_part(classify, tmp_path):
    other = tmp_path / "test.csv"
    other.write_text("text,label\n새 글,good\n다른 글,bad\n", encoding="utf-8")
    task = classify(*reviews(), test_path=str(other))
    assert (len(task.rows["test"]), len(task.rows["valid"]), len(task.rows["train"])) == (2, 24, 96)
    assert list(task.checksums) == ["my.tsv", "test.csv"]
    other.write_text("text,label\n새 글,great\n", encoding="utf-8")
    with pytest.raises(DataError, match="class 'great' of test is not in the training"):
        classify(*reviews(), test_path=str(other))


def test_one_class_or_too_few_texts_of_a_class_cost_one_line(classify):
    with pytest.raises(DataError, match="expected at least 2 classes, got 1"):
        classify(["a"] * 9, ["good"] * 9)
    with pytest.raises(DataError, match="class 'bad' has 1 "):
        classify(["a"] * 9, ["good"] * 8 + ["bad"])
    with pytest.raises(ConfigError, match=r"no file is given: set task\.path"):
        built("sentiment_file")


def test_texts_hold_every_contract_of_a_task(classify):
    texts, labels = reviews()
    results = check_task(lambda seed: classify(texts, labels))
    assert [result for result in results if result.passed is False] == []


def test_nsmc_is_split_by_its_rows_and_its_language_model_reads_the_same_splits(real_data):
    folder = str(real_data)
    data, rows = load_nsmc(folder)
    assert len(data.texts) == 24_998  # two of 25,000 rows have no text
    assert {split: len(own) for split, own in rows.items()} == {
        "train": 17_498,
        "valid": 2_500,
        "test": 5_000,
    }
    assert np.concatenate(list(rows.values())).tolist() == [*range(24_998)]
    text = load_text("nsmc", folder)
    for split, own in rows.items():
        assert getattr(text, split).split("\n")[:-1] == [data.texts[i] for i in own]
    task = built("nsmc", folder, train_size=100)
    assert (task.notes["train_sequences"], task.spec.length) == (100, 152)
    assert not any(name.startswith("cut") for name in task.notes)
    assert int(task.targets[task.rows["train"]].sum()) == 50


def test_texts_of_validation_and_test_that_are_also_in_training_are_counted(classify):
    texts, labels = reviews()
    assert not any(name.endswith("_in_train") for name in classify(texts, labels).notes)
    texts[1::2] = ["the same"] * len(texts[1::2])
    task = classify(texts, labels)
    places = {split: task.rows[split].tolist() for split in ("valid", "test")}
    expected = {f"{split}_texts_in_train": sum(i % 2 for i in own) for split, own in places.items()}
    assert {name: task.notes[name] for name in expected} == expected
    assert all(expected.values())
