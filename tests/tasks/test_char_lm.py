import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from seqbench.datasets.text import Text
from seqbench.errors import ConfigError
from seqbench.tasks.char_lm import CharFile, CharLM, CharTask, characters_of
from seqbench.tasks.word_lm import WordFile, WordLM

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "task"
BUILD = {"batch_size": 2, "seed": 0, "data_dir": None}


def text_task(text, length=8, context=2, **sizes):
    sizes = {"train_size": None, "eval_size": None, **sizes}
    return CharTask(text, characters_of(text, None), length, context, **sizes, **BUILD)


def test_notes_and_checksums_describe_the_text():
    text = Text("ab" * 50, "abc cab", "abd", {"my.txt": "5e"})
    task = text_task(text)
    assert task.spec.output_dim == len(task.vocabulary) == 3
    # After the first a: b, known as half of the text, and d, which is unknown.
    shares = 50.5 / 101.5, 0.5 / 101.5 / 0x110000
    assert task.baseline == pytest.approx(-sum(map(math.log2, shares)) / 2)
    assert task.notes == {"unknown_valid": 3, "unknown_test": 1}
    assert task.checksums == {"my.txt": "5e"}
    (batch,) = task.eval_batches("valid")
    assert batch.targets[batch.scored].tolist() == [2, 0, 0, 0, 1, 2]


def test_an_unknown_character_costs_the_choice_among_all_code_points():
    task = text_task(Text("ab" * 50, "ab" * 10, "ax" * 4 + "a", {}))
    (batch,) = task.eval_batches("test")
    sure = 50 * torch.nn.functional.one_hot(batch.targets, len(task.vocabulary)).float()
    bits, count = task.metrics(sure, batch)["bpc"]
    assert (float(bits), count) == (pytest.approx(4 * math.log2(0x110000)), 8)


def test_a_replacement_character_of_the_training_text_is_known():
    task = text_task(Text("ab\ufffd" * 40, "ab" * 10, "a\ufffd" * 3 + "x", {}))
    (batch,) = task.eval_batches("test")
    sure = 50 * torch.nn.functional.one_hot(batch.targets, len(task.vocabulary)).float()
    bits, count = task.metrics(sure, batch)["bpc"]
    assert (float(bits), count) == (pytest.approx(math.log2(0x110000)), 6)
    assert task.notes["unknown_test"] == 1


def test_train_size_and_eval_size_keep_the_beginning_of_each_split():
    text = Text("ab" * 50 + "c", "ab" * 10 + "c", "ba" * 10, {})
    task = text_task(text, train_size=60, eval_size=4)
    # The vocabulary is that of the whole training text: train_size must not change the model.
    assert task.vocabulary.characters[1:] == "abc"
    assert len(task.texts["train"]) == 60
    assert task.vocabulary.decode(task.texts["test"]) == "baba"
    assert task.notes["unknown_valid"] == 0
    with pytest.raises(ConfigError, match=r"task\.eval_size must be at least 2 characters, not -1"):
        text_task(text, eval_size=-1)


def test_a_korean_file_is_tokenized_by_character(tmp_path):
    path = tmp_path / "korean.txt"
    words = ["".join(chr(0xAC00 + (37 * i + 7 * j) % 600) for j in range(4)) for i in range(300)]
    path.write_text(" ".join(words), encoding="utf-8")
    task = CharFile(str(path), None, 32, 8, None, None, batch_size=4, seed=0, data_dir=None)
    assert task.texts["train"].dtype == torch.int16
    row = task.train_batch(0).inputs[2]
    assert task.vocabulary.decode(row) in " ".join(words)
    np.testing.assert_array_equal(task.vocabulary.encode(task.vocabulary.decode(row)), row)


def test_a_missing_path_raises_with_the_override_to_set():
    with pytest.raises(ConfigError, match=r"task\.path=my\.txt"):
        CharFile(None, None, 32, 8, None, None, **BUILD)


def test_statistics_of_korean_movie_reviews_are_plausible(real_data):
    path = real_data / "nsmc" / "ratings_test.head25000.txt"
    task = CharFile(str(path), None, 128, 32, 200_000, 20_000, batch_size=16, seed=0, data_dir=None)
    start = path.read_text(encoding="utf-8")[:50]
    assert task.vocabulary.decode(task.vocabulary.encode(start)) == start
    assert 1000 < len(task.vocabulary) < 2500
    assert 4 < task.baseline < math.log2(len(task.vocabulary))
    assert 0 < task.notes["unknown_test"] < 1000


def test_penn_treebank_has_the_vocabulary_and_size_of_the_paper(real_data):
    task = instantiate(OmegaConf.load(CONFIGS / "char_ptb.yaml"))(
        batch_size=32, seed=0, data_dir=str(real_data)
    )
    assert isinstance(task, CharLM)
    assert len(task.vocabulary) == 50 + 1
    assert task.notes["unknown_valid"] == task.notes["unknown_test"] == 0
    count = sum(int(batch.scored.sum()) for batch in task.eval_batches("test"))
    assert count == 449_945 - 1
    # Per character as published, with <eos> for each of the 3,761 line ends, a score is lower.
    totals = {}
    for batch in task.eval_batches("test"):
        outputs = torch.zeros(*batch.targets.shape, 51)
        for name, (total, number) in task.metrics(outputs, batch).items():
            was = totals.get(name, (0, 0))
            totals[name] = was[0] + float(total), was[1] + number
    scores = {name: total / number for name, (total, number) in totals.items()}
    assert scores["bpc"] == pytest.approx(math.log2(51), rel=1e-5)
    ends = 449_944 + 4 * 3_761
    assert scores["bpc_eos"] == pytest.approx(scores["bpc"] * 449_944 / ends, rel=1e-6)
    assert task.notes["baseline_bpc_eos"] == pytest.approx(task.baseline * 449_944 / ends)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("char_ptb", CharLM),
        ("char_text8", CharLM),
        ("char_enwik8", CharLM),
        ("char_shakespeare", CharLM),
        ("char_file", CharFile),
        ("word_ptb", WordLM),
        ("word_file", WordFile),
    ],
)
def test_configs_set_every_parameter_without_a_default_and_shuffle(name, target):
    config = OmegaConf.load(CONFIGS / f"{name}.yaml")
    assert config._target_ == f"{target.__module__}.{target.__qualname__}"
    given = set(config) - {"_target_", "_partial_"}
    parameters = inspect.signature(target).parameters.values()
    needed = {p.name for p in parameters if p.default is inspect.Parameter.empty}
    assert given | set(BUILD) == needed | {"shuffle"}
