import pytest
from typer.testing import CliRunner

from seqbench.cli.main import app


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--model", "tcn"], "no option --model: expected model=tcn, without dashes"),
        (["sweep", "--seed=3"], "no option --seed: expected seed=3, without dashes"),
        (["bench", "--output-dir"], "no option --output-dir: expected output_dir=VALUE"),
        (["train", "--optimizer.lr", "0.1"], "expected optimizer.lr=0.1, without dashes"),
    ],
)
def test_a_key_given_as_an_option_is_answered_with_the_override(words, said):
    assert said in str(CliRunner().invoke(app, words).exception)


def test_a_mistyped_option_gets_the_nearest_one():
    result = CliRunner().invoke(app, ["train", "--forse"])
    assert result.exit_code == 2
    assert "--force" in result.output
