import shlex
import sys

import pytest

from seqbench.config.compose import Composer, compose
from seqbench.errors import ConfigError
from seqbench.results.command import command
from seqbench.runs.identity import run_id, without_environment


@pytest.fixture(scope="module")
def composer():
    return Composer()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["model=lstm", "task=copy", "budget=quick", "seed=7"],
        ["model=llama", "task=char_ptb", "budget=smoke"],
        ["model=gru", "task=pmnist", "optimizer.lr=3e-4", "trainer.batch_size=8"],
        ["optimizer=sgd", "optimizer.momentum=0.9"],
        ["optimizer=adamw", "schedule=step", "schedule.milestones=[0.2,0.9]"],
        ["schedule=constant", "optimizer=adam"],
        ["recipe=none", "trainer.steps=77"],
        ["trainer.epochs=3", "budget=quick"],
        ["model.channels=[8,8,8]", "model.dropout_kind=element", "trainer.clip=null"],
        ["task=char_file", "task.path=/some/where/a b.txt", "task.sha256=0123"],
        ["optimizer.betas=[0.8,0.9]", "trainer.stop_when_solved=true"],
        ["task=smnist", "protocol=paper", "~task.valid_size"],
        ["optimizer=adamw", "~optimizer.betas"],
    ],
    ids=" ".join,
)
def test_the_command_gives_the_same_run(composer, words):
    config = composer.compose(words)
    program, train, *again = shlex.split(command(without_environment(config)))
    assert (program, train) == ("seqbench", "train")
    assert run_id(composer.compose(again)) == run_id(config)
    # It is as short as what was typed, give or take the choices that it always names.
    assert len(again) <= len(words) + 5 + 4 * ("recipe=none" in words)


def test_an_option_that_the_record_lacks_is_deleted_unless_it_is_null(composer):
    config = composer.compose(["model=lstm"])
    for key in ("chrono", "tied"):
        del config["model"][key]
    deleted = [word for word in shlex.split(command(config)) if word.startswith("~")]
    assert deleted == ["~model.tied"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"model": {"_target_": "os.system", "command": "rm -rf /"}},
            "cannot be given on a command line",
        ),
        ({"task": {"_target_": "x.Y"}}, "cannot be given on a command line"),
        ({"optimizer": {"_target_": "evil.Adam"}}, "no seqbench config has the optimizer"),
        ({"choices": {"task": "adding", "model": "tcn,lstm"}}, "no name"),
        ({"choices": {"task": "../../x", "model": "tcn"}}, "no name"),
        ({"choices": "no"}, "no name"),
        ({"budget": "full --config-dir=/tmp/evil"}, "no name"),
        ({"seed": {"a": 1}}, "cannot hold"),
        ({"seed": "${oc.env:HOME}"}, "cannot hold"),
        ({"seed": "1\n2"}, "cannot hold"),
    ],
)
def test_what_a_stranger_wrote_makes_no_command(composer, change, reason):
    config = without_environment(composer.compose(["model=tcn"])) | change
    with pytest.raises(ConfigError, match=reason):
        command(config)


@pytest.mark.parametrize("name", ["hydra", "-m", "a b", "x=y", "_target_", ""])
def test_no_odd_key_reaches_a_command(composer, name):
    config = without_environment(composer.compose(["model=tcn"]))
    config["model"] = config["model"] | {name: 1}
    config["hydra"] = {"launcher": {"_target_": "evil"}}
    if name == "hydra":
        assert command(config).endswith(" model.hydra=1")
    else:
        with pytest.raises(ConfigError):
            command(config)


def test_a_model_of_ones_own_is_named_not_built(composer):
    config = without_environment(composer.compose(["model=tcn"]))
    config["choices"]["model"] = "mine"
    config["model"] = {"_target_": "my_package.Mine", "_partial_": True, "width": 3}
    said = command(config)
    assert said.startswith("seqbench train --config-dir FOLDER task=adding model=mine ")
    assert "model.width=3" in said
    assert "_target_" not in said


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """Return a config with a custom model that the user has typed on this machine."""
    (tmp_path / "mine_of_the_command.py").write_text(
        "class Mine:\n    def __init__(self, spec): ...\n"
    )
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text("_target_: mine_of_the_command.Mine")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    yield lambda name: without_environment(compose([f"model={name}"], "own"))
    sys.modules.pop("mine_of_the_command", None)


def test_the_folder_of_a_custom_model_is_named_if_it_is_known(typed, tmp_path):
    config = typed("mine")
    assert f"--config-dir {tmp_path / 'own'} task=adding model=mine " in command(config)
    (tmp_path / "own" / "model" / "mine.yaml").unlink()
    assert "--config-dir FOLDER task=adding model=mine " in command(config)


def test_a_class_is_in_a_command_only_if_the_user_typed_it(typed):
    config = typed("mine_of_the_command.Mine")
    assert shlex.split(command(config))[2:4] == ["task=adding", "model=mine_of_the_command.Mine"]
    for change in (
        {"model": config["model"] | {"width": 3}},
        {"model": {"_target_": "os.system"}},
        {"choices": {"task": "adding", "model": "os.system"}},
    ):
        with pytest.raises(ConfigError, match="names code that was not trained here"):
            command(config | change)
