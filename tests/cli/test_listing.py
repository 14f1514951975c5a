import pytest
from typer.testing import CliRunner

from seqbench.cli.main import app


def listed(*words: object) -> list[str]:
    done = CliRunner().invoke(app, ["list", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def test_choices_of_the_users_folder_are_listed_too(tmp_path):
    for group in ("model", "recipe"):
        (tmp_path / group).mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# My own model. It is small.\n_target_: a.B\n")
    (tmp_path / "model" / "gru.yaml").write_text("# Another GRU\n_target_: a.C\n")
    (tmp_path / "recipe" / "copy_mine.yaml").write_text(
        "# @package _global_\nrecipe: {source: by hand}\n"
    )
    models = dict(line.split(maxsplit=1) for line in listed("models", "--config-dir", tmp_path))
    assert models["mine"] == "My own model"
    assert models["gru"] == "Another GRU"
    assert "Temporal" in models["tcn"]
    own = set(listed("recipes", "--config-dir", tmp_path)) - set(listed("recipes"))
    assert [line.split(maxsplit=1) for line in own] == [["copy_mine", "by hand"]]
    assert "Another GRU" not in " ".join(listed("models"))


@pytest.mark.parametrize(
    "kind", ["models", "tasks", "optimizers", "schedules", "budgets", "protocols", "papers"]
)
def test_every_choice_has_a_description_that_fits_a_terminal(kind):
    for line in listed(kind):
        assert len(line.split(maxsplit=1)) == 2, line
        assert len(line) <= 80, line


def test_an_unknown_kind_is_told_the_nearest():
    done = CliRunner().invoke(app, ["list", "task"])
    assert str(done.exception) == "nothing to list of kind 'task' (did you mean 'tasks'?)"


def test_what_cannot_be_listed_costs_one_line(tmp_path):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "bad.yaml").write_text("a: [")
    for folder, reason in ((tmp_path, "bad.yaml, line"), (tmp_path / "no", "no folder of")):
        done = CliRunner().invoke(app, ["list", "recipes", "--config-dir", str(folder)])
        assert done.stdout == ""
        assert reason in str(done.exception)
