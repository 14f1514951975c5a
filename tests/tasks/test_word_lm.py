import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqbench.datasets.text import Text
from seqbench.errors import ConfigError
from seqbench.tasks.byte_pairs import BytePairs
from seqbench.tasks.word_lm import WordFile, WordLM, WordTask
from seqbench.tasks.words import Words

LINE = "the cat sat on the mat and the dog sat on the log 12\n"
BUILD = {"batch_size": 2, "seed": 0, "data_dir": None}


def word_task(test, train=LINE * 20, vocabulary=None, length=8, context=2):
    text = Text(train, LINE, test, {"my.txt": "5e"})
    vocabulary = vocabulary or Words.from_text(train)
    return WordTask(text, vocabulary, length, context, None, None, **BUILD)


def scored(task, outputs_of, split="test"):
    """Return the metrics of a split, as the trainer computes them."""
    sums, counts = {}, {}
    for batch in task.eval_batches(split):
        for name, (value, count) in task.metrics(outputs_of(batch), batch).items():
            sums[name] = sums.get(name, 0) + float(value)
            counts[name] = counts.get(name, 0) + count
    return task.metrics_of({name: value / counts[name] for name, value in sums.items()})


def uniform(task):
    return lambda batch: torch.zeros(*batch.inputs.shape, task.spec.output_dim)


@given(st.text("abc \n", min_size=3), st.sampled_from(["word", "bpe"]), st.integers(1, 9))
def test_a_uniform_model_scores_the_bits_of_all_tokens_over_all_characters(text, kind, length):
    text = "a " + text + " b"
    train = "a b c\n" * 40
    kinds = {"word": lambda: Words.from_text(train), "bpe": lambda: BytePairs.from_text(train, 270)}
    task = word_task(text, train, kinds[kind](), length, length // 2)
    found = scored(task, uniform(task))
    size, tokens = task.spec.output_dim, task.vocabulary.encode(text)
    sizes, unknown = task.vocabulary.spans(text)
    # The first token is not predicted.
    bits = (len(tokens) - 1) * math.log2(size)
    bits += sizes[1:][unknown[1:]].sum() * task.vocabulary.spelling_bits
    assert found["perplexity"] == pytest.approx(size, rel=1e-5)
    assert found["cross_entropy"] == pytest.approx(math.log(size), rel=1e-5)
    assert found["bpc"] == pytest.approx(bits / sizes[1:].sum(), rel=1e-5)


def test_each_token_is_predicted_once_and_its_characters_are_counted():
    text = "  the bat sat\n\n on  the log "
    task = word_task(text, length=4, context=1)
    batches = list(task.eval_batches("test"))
    count = sum(int(batch.scored.sum()) for batch in batches)
    assert count == len(task.texts["test"]) - 1 == 7
    read = " the bat sat\n\n on the log "
    assert sum(batch.characters for batch in batches) == len(read) - len(" the")
    assert sum(batch.spelled for batch in batches) == len(" bat")


def test_an_unknown_word_costs_its_spelling_in_bits_per_character():
    known, unknown = word_task("the cat sat\n"), word_task("the bat sat\n")
    one, other = (scored(task, uniform(task)) for task in (known, unknown))
    assert one["perplexity"] == other["perplexity"]
    extra = len(" bat") * known.vocabulary.spelling_bits / len(" cat sat\n")
    assert other["bpc"] == pytest.approx(one["bpc"] + extra)


def test_the_baseline_is_the_score_of_the_word_frequencies_of_train():
    task = word_task("the cat ate\n" * 5)
    counts = torch.bincount(task.texts["train"], minlength=len(task.vocabulary)) + 0.5
    logits = (counts / counts.sum()).log()
    found = scored(task, lambda batch: logits.expand(*batch.inputs.shape, -1))
    assert found["perplexity"] == pytest.approx(task.baseline, rel=1e-5)
    assert found["bpc"] == pytest.approx(task.notes["baseline_bpc"])
    assert found["cross_entropy"] == pytest.approx(task.notes["baseline_cross_entropy"])
    assert task.naive == {"unigram": task.baseline}
    assert word_task(LINE).baseline < len(task.vocabulary) < task.baseline


def test_a_huge_loss_is_an_infinite_perplexity():
    task = word_task(LINE)
    assert task.metrics_of({"perplexity": 1e4, "cross_entropy": 1e4})["perplexity"] == math.inf


def test_notes_count_tokens_and_unknown_ones():
    task = word_task("the cat ate\n")
    assert task.notes["unit"] == "words"
    assert [task.notes[f"unknown_{split}"] for split in ("train", "valid", "test")] == [0, 0, 1]
    assert (task.notes["train_tokens"], task.notes["test_tokens"]) == (300, 4)
    assert task.checksums == {"my.txt": "5e"}


def file_task(path, tokens="word", min_count=2, vocab_size=None, train_size=None, **changes):
    sizes = {"length": 8, "context": 2, "train_size": train_size, "eval_size": None}
    return WordFile(str(path), None, tokens, min_count, vocab_size, **sizes, **BUILD, **changes)


@pytest.fixture
def path(tmp_path):
    lines = [LINE.replace("12", str(i)) for i in range(200)]
    (tmp_path / "my.txt").write_text("".join(lines))
    return tmp_path / "my.txt"


def test_rare_words_of_a_file_are_unknown_in_train_too(path):
    task = file_task(path)
    assert "<unk>" in task.vocabulary.names
    assert not {"12", "199"} & set(task.vocabulary.names)
    assert 170 < task.notes["unknown_train"] < 190
    assert file_task(path, min_count=1).notes["unknown_train"] == 0
    assert len(file_task(path, vocab_size=5).vocabulary) == 5


@pytest.mark.parametrize("tokens", ["word", "bpe"])
def test_the_vocabulary_is_that_of_the_whole_training_text_and_of_no_other(path, tokens):
    whole = file_task(path, tokens, min_count=1).preprocessing()
    assert file_task(path, tokens, min_count=1, train_size=500).preprocessing() == whole
    text = path.read_text()
    train = text[: int(len(text) * 0.9)]
    path.write_text(train + ("another end\n" * len(text))[: len(text) - len(train)])
    assert file_task(path, tokens, min_count=1).preprocessing() == whole


@pytest.mark.parametrize("tokens", ["word", "bpe"])
def test_another_text_is_read_with_the_tokens_of_a_run(path, tokens):
    first = file_task(path, tokens)
    path.write_text("other words in another text\n" * 100)
    again = file_task(path, tokens, preprocessing=first.preprocessing())
    assert again.preprocessing() == first.preprocessing()
    # Subwords are never unknown; of the words, only line ends are known.
    lines = again.parts["test"].count("\n")
    unknown = again.notes["test_tokens"] - lines if tokens == "word" else 0
    assert again.notes["unknown_test"] == unknown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_count": 0}, r"task\.min_count must be at least 1, not 0"),
        ({"vocab_size": 2}, r"task\.vocab_size must be at least 3 with task\.tokens=word, not 2"),
        ({"tokens": "bpe", "vocab_size": 99}, r"at least 256 with task\.tokens=bpe, not 99"),
    ],
)
def test_an_option_out_of_range_raises(path, options, said):
    with pytest.raises(ConfigError, match=said):
        file_task(path, **options)


def test_penn_treebank_has_the_published_words(real_data):
    task = WordLM("ptb", 60, 40, None, None, batch_size=20, seed=0, data_dir=str(real_data))
    assert len(task.vocabulary) == 10_000
    sizes = [len(task.texts[split]) for split in ("train", "valid", "test")]
    assert sizes == [929_589, 73_760, 82_430]
    assert task.steps_per_epoch == 2323
    assert task.notes["unknown_valid"] == task.notes["unknown_test"] == 0
    assert 600 < task.baseline < 700
    characters = sum(batch.characters for batch in task.eval_batches("test"))
    assert characters == 449_945 - len(" no")
