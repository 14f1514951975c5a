"""`seqbench config explain` prints the settings of a choice with their meaning."""

import pytest
from typer.testing import CliRunner

from seqbench.cli.main import app
from seqbench.errors import ConfigError


def explained(*words):
    return CliRunner().invoke(app, ["config", "explain", *words])


def test_settings_are_printed_with_their_defaults_and_comments(tmp_path):
    lines = explained("task=forecast_file").stdout.splitlines()
    assert "horizon: 24             # time steps ahead" in lines
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("width: 3  # of it\n")
    assert explained("model=mine", f"--config-dir={tmp_path}").stdout == "width: 3  # of it\n"
    shown = CliRunner().invoke(app, ["train", "task=forecast_file", "--help"]).stdout
    assert "seqbench config explain task=forecast_file" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("task=forecastfile", "no task named 'forecastfile' (did you mean 'forecast_file'?)"),
        ("tsk=adding", "no group named 'tsk' (did you mean 'task'?)"),
        ("task", "expected GROUP=NAME, such as task=forecast_file, got 'task'"),
        ("task=../paper/tcn2018", "no task named '../paper/tcn2018'"),
    ],
)
def test_what_is_no_choice_costs_one_line(word, said):
    failed = explained(word).exception
    assert isinstance(failed, ConfigError)
    assert str(failed).startswith(said)
