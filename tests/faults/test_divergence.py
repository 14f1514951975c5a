"""NaN or infinity ends a run as diverged; it keeps the last good weights, tables show no NaN."""

import csv
import io
import json
import re
from contextlib import contextmanager
from itertools import count
from unittest.mock import patch

import pytest
from small_run import prepared, small

from seqbench.errors import Interrupted
from seqbench.experiment import run, single
from seqbench.runs.run import Run
from seqbench.training import checkpoint
from seqbench.training.trainer import Trainer

MODELS = {
    "tcn": ["model=tcn", "model.channels=[4,4]", "model.kernel_size=3"],
    "lstm": ["model=lstm", "model.hidden_size=6"],
    "gru": ["model=gru", "model.hidden_size=6"],
    "rnn": ["model=rnn", "model.hidden_size=6"],
    "llama": ["model=llama", "model.dim=8", "model.num_heads=2", "model.num_layers=1"],
}
WAYS = {
    # The loss is read long after it went wrong.
    "late": ["optimizer=sgd", "optimizer.lr=1e30", "trainer.log_every=7", "trainer.eval_every=7"],
    "clipped": ["optimizer=sgd", "optimizer.lr=1e38", "trainer.clip=1.0"],
    # The loss before the step is fine, the score after it is none.
    "score": ["optimizer=adam", "optimizer.lr=1e30", "trainer.eval_every=1", "trainer.log_every=1"],
    "saving": ["optimizer=sgd", "optimizer.lr=1e35", "trainer.checkpoint_every=1"],
}
NO_NUMBER = re.compile(r"\b(nan|inf|infinity)\b", re.IGNORECASE)


def overrides(model: str, way: str) -> list[str]:
    return [*MODELS[model], *WAYS[way]]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_what_diverges_keeps_what_was_good(model, way, tmp_path):
    config = small(tmp_path, *overrides(model, way))
    record = run(config)
    assert record.status == "diverged"
    assert (record.score, record.metrics) == (None, {})
    assert re.match(
        r"diverged: .* is (nan|inf) at step \d+; a lower optimizer\.lr, .* may help", record.error
    )
    checkpoints = Run.of(config).checkpoints
    for path in checkpoints.iterdir():
        tensors, _ = checkpoint.load(path)
        for name, tensor in tensors.items():
            if name.startswith("model."):
                assert tensor.isfinite().all(), f"{path.name}: {name}"
    if (checkpoints / checkpoint.BEST).exists():
        step = checkpoint.load(checkpoints / checkpoint.BEST)[1]["step"]
        assert record.error.endswith(f"; the best weights so far, of step {step}, are kept")
    text = Run.of(config).record_path.read_text() + Run.of(config).events_path.read_text()
    json_of = [json.loads(line) for line in Run.of(config).events_path.read_text().splitlines()]
    assert json_of
    assert not re.search(r"\b(NaN|Infinity)\b", text)


def test_tables_show_divergence_and_no_number_that_is_none(tmp_path, seqbench):
    runs = list(zip(MODELS, WAYS, strict=False))
    for model, way in runs:
        run(small(tmp_path, *overrides(model, way)))
    for form in ("rich", "markdown", "csv", "json"):
        done = seqbench("table", "--output-dir", tmp_path, "--format", form)
        assert (done.code, done.err) == (0, "")
        assert not NO_NUMBER.search(done.out)
        assert "diverged" in done.out
    lines = list(csv.DictReader(io.StringIO(seqbench("table", tmp_path, "-f", "csv").out)))
    assert sum(int(line["diverged"]) for line in lines) == len(runs) == 4
    assert {(line["n"], line["mean"]) for line in lines} == {("0", "")}
    done = seqbench("runs", "--output-dir", tmp_path, "--status", "diverged")
    assert done.out.count("diverged") == len(runs)
    assert not NO_NUMBER.search(done.out)


@contextmanager
def stopped_after(steps: int):
    """Ask a run to stop after so many steps of this part."""

    @contextmanager
    def signals():
        asked = count(1)
        yield lambda: next(asked) >= steps

    with patch.object(single, "signals", signals):
        yield


@pytest.mark.parametrize("way", WAYS)
def test_an_interruption_on_the_way_changes_nothing(way, tmp_path):
    """Interrupt also between the step of the first NaN and the step that detects it."""
    calm = small(tmp_path / "calm", *overrides("tcn", way))
    expected = run(calm).to_json() | {"measured": None}
    for steps in range(1, expected["steps"]):
        config = small(tmp_path / str(steps), *overrides("tcn", way))
        with stopped_after(steps), pytest.raises(Interrupted):
            run(config)
        assert run(config).to_json() | {"measured": None} == expected
        assert Run.of(config).events_path.read_bytes() == Run.of(calm).events_path.read_bytes()


def test_a_test_score_that_is_no_number(tmp_path, seqbench):
    # Validation is fine, and the test split has an example that no weights survive.
    config = small(tmp_path)
    evaluate = Trainer.evaluate

    def hurt(trainer, model, task, split):
        scores = evaluate(trainer, model, task, split)
        return {name: float("inf") for name in scores} if split == "test" else scores

    folder = prepared(config)
    for extra in ([], [], ["--retry"]):
        with patch.object(Trainer, "evaluate", hurt):
            done = seqbench("train", "--resume", folder, *extra)
        assert (done.code, done.out) == (1, "")
        assert "error: diverged: test mse is inf at step 20; " in done.err.splitlines()[-1]
    assert Run.of(config).record.score is None
    done = seqbench("table", "--output-dir", tmp_path)
    assert done.code == 0
    assert not NO_NUMBER.search(done.out)
    assert "1\u00a0diverged" in done.out
