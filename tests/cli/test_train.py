"""Test `seqbench train` in this process."""

from typer.testing import CliRunner

from seqbench.cli.main import app
from seqbench.results.collect import collect

SMALL = [
    *("model=tcn", "model.channels=[4]", "model.kernel_size=3", "model.dropout=0", "task=adding"),
    *("task.length=12", "task.train_size=16", "task.eval_size=8", "trainer.batch_size=8"),
    *("recipe=none", "trainer.steps=2", "threads=1", "device=cpu"),
]


def test_several_seeds_begin_at_the_one_given(tmp_path):
    words = ["train", *SMALL, "seed=8", "seeds=2", f"output_dir={tmp_path}"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert sorted(record.seed for record in collect([tmp_path]).records) == [8, 9]
