"""The splits of the spoken digits are those that their names say."""

import pytest

from seqbench.config.build import build
from seqbench.config.choices import read_choice
from seqbench.datasets.spoken_digits import load_spoken_digits


@pytest.fixture(scope="module")
def digits(real_data):
    return load_spoken_digits(2000, str(real_data))


@pytest.fixture
def task(digits, real_data, monkeypatch):
    module = "seqbench.tasks.spoken_digits.load_spoken_digits"
    monkeypatch.setattr(module, lambda rate, data_dir: digits)

    def made(**values):
        node = read_choice("task", "spoken_digits") | {"rate": 2000} | values
        options = {"batch_size": 16, "seed": 0, "data_dir": str(real_data)}
        return build("task", {"task": node}, **options)

    return made


def test_the_dataset_has_fifty_recordings_of_each_digit_and_speaker(digits):
    recordings = digits.recordings
    triples = zip(recordings.labels, digits.speakers, digits.numbers, strict=True)
    speakers = {"george", "jackson", "lucas", "nicolas", "theo", "yweweler"}
    assert set(triples) == {(str(d), s, i) for d in range(10) for s in speakers for i in range(50)}
    assert len(recordings.lengths) == 3000
    assert abs(recordings.values).max() <= 1.1  # a filter overshoots
    # 1,148 to 18,262 samples at 8 kHz.
    assert (recordings.lengths.min(), recordings.lengths.max()) == (287, 4566)


def test_the_official_test_has_the_first_recordings_of_each_digit_and_speaker(task, digits):
    official = task()
    sizes = {split: len(rows) for split, rows in official.rows.items()}
    assert sizes == {"train": 2400, "valid": 300, "test": 300}
    numbers = {split: {digits.numbers[i] for i in rows} for split, rows in official.rows.items()}
    assert numbers["test"] == {*range(5)}
    assert numbers["valid"] == {*range(5, 10)}
    assert official.naive == {"majority class": pytest.approx(0.1)}
    assert len(next(iter(official.checksums.values()))) == 64


def test_no_speaker_is_in_two_of_the_speaker_wise_splits(task, digits):
    apart = task(split="speaker", eval_size=20)
    speakers = {split: {digits.speakers[i] for i in rows} for split, rows in apart.rows.items()}
    assert speakers["valid"] == {"theo"}
    assert speakers["test"] == {"yweweler"}
    assert speakers["train"] == {"george", "jackson", "lucas", "nicolas"}
    assert [len(apart.rows[split]) for split in ("train", "valid", "test")] == [2000, 20, 20]
