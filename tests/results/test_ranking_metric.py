from dataclasses import replace

import pytest
from record_factory import make_record

from seqbench.errors import ConfigError
from seqbench.results.cells import aggregate
from seqbench.results.metric import ranked_by
from seqbench.runs.record import Score


def word_record(bpc, seed=0):
    """Return a record whose score is a perplexity, and which has bits per character, too."""
    record = make_record("word_ptb", seed=seed)
    metrics = {"perplexity": 100.0, "bpc": bpc, "accuracy": 0.2}
    return replace(
        record,
        score=Score(metric="perplexity", split="test", value=100.0, direction="min"),
        metrics={"test": metrics},
        baseline=600.0,
        naive={"unigram": 600.0},
        notes={"baseline_bpc": 1.7},
    )


def test_records_are_ranked_by_another_metric_with_its_baseline():
    own, (found,) = word_record(1.25), ranked_by([word_record(1.25)], "bpc")
    assert found.score == Score(metric="bpc", split="test", value=1.25, direction="min")
    assert found.bounds == {"without memory": 1.7}
    assert ranked_by([own], "perplexity") == [own]
    (found,) = ranked_by([own], "accuracy")
    assert (found.score.direction, found.bounds) == ("max", {})
    (cell,) = aggregate(ranked_by([own, word_record(1.35, seed=1)], "bpc"))
    assert (cell.column.metric, cell.statistics.mean) == ("bpc", pytest.approx(1.3))


def test_tokenizations_stand_in_one_column_if_ranked_per_character():
    def run(**options):
        task = {"task__path": "my.txt", "task__tokens": "word", "task__length": 96} | options
        made = word_record(1.25)
        return replace(made, config=make_record("word_file", **task).config, task="word_file")

    runs = [run(), run(task__tokens="bpe", task__length=200, task__vocab_size=500)]
    assert len({cell.column for cell in aggregate(runs)}) == 2
    cells = aggregate(ranked_by(runs, "bpc"))
    assert len({cell.column for cell in cells}) == 1
    variants = [cell.variant for cell in cells]
    assert variants == ["length=200, tokens=bpe, vocab_size=500", "length=96, tokens=word"]


def test_runs_without_the_metric_are_left_out_and_failed_ones_stay():
    failed = make_record(seed=3, status="failed", value=None)
    failed = replace(failed, score=None)
    kept = ranked_by([make_record("adding"), word_record(1.25), failed], "bpc")
    assert [record.status for record in kept] == ["completed", "failed"]


def test_a_metric_that_no_run_has_is_named_with_a_hint():
    with pytest.raises(ConfigError, match=r"no run has a metric 'bcp' \(did you mean 'bpc'\?\)"):
        ranked_by([word_record(1.25)], "bcp")
