import shlex
from itertools import product

import pytest

from seqbench.config.choices import CONFIG_FOLDER
from seqbench.config.compose import Composer
from seqbench.errors import ConfigError
from seqbench.results.recipe import command, differences, other_amount
from seqbench.runs.identity import run_id, without_place


@pytest.fixture
def composer():
    with Composer() as made:
        yield made


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
    ],
    ids=" ".join,
)
def test_the_command_gives_the_same_run(composer, words):
    config = composer.compose(words)
    program, train, *again = shlex.split(command(without_place(config)))
    assert (program, train) == ("seqbench", "train")
    assert run_id(composer.compose(again)) == run_id(config)
    # It is as short as what was typed, give or take the choices that it always names.
    assert len(again) <= len(words) + 5 + 4 * ("recipe=none" in words)


def test_differences_are_those_of_the_result_only(composer):
    config = composer.compose(["model=tcn", "device=cpu", "trainer.log_every=1", "threads=1"])
    assert differences(without_place(config)) == []
    config = composer.compose(["model=tcn", "model.kernel_size=3"])
    assert [tuple(found) for found in differences(config)] == [("model.kernel_size", 8, 3)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": {"_target_": "os.system", "command": "rm -rf /"}}, "no command should say"),
        ({"task": {"_target_": "x.Y"}}, "no command should say that"),
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
    config = without_place(composer.compose(["model=tcn"])) | change
    with pytest.raises(ConfigError, match=reason):
        command(config)


@pytest.mark.parametrize("name", ["hydra", "-m", "a b", "x=y", "_target_", ""])
def test_no_odd_key_reaches_a_command(composer, name):
    config = without_place(composer.compose(["model=tcn"]))
    config["model"] = config["model"] | {name: 1}
    config["hydra"] = {"launcher": {"_target_": "evil"}}
    if name == "hydra":
        assert command(config).endswith(" model.hydra=1")
    else:
        with pytest.raises(ConfigError):
            command(config)


def test_a_model_of_ones_own_is_named_not_built(composer):
    config = without_place(composer.compose(["model=tcn"]))
    config["choices"]["model"] = "mine"
    config["model"] = {"_target_": "my_package.Mine", "_partial_": True, "width": 3}
    said = command(config)
    assert said.startswith("seqbench train --config-dir FOLDER task=adding model=mine ")
    assert "model.width=3" in said
    assert "_target_" not in said


def names(group):
    return sorted(path.stem for path in (CONFIG_FOLDER / group).glob("*.yaml"))


def test_what_the_choices_mean_is_known(composer):
    codes = {path.stem for path in (CONFIG_FOLDER / "protocol_for/pair").glob("*_code.yaml")}
    models, budgets = names("model"), names("budget")
    for i, (task, protocol) in enumerate(product(names("task"), names("protocol"))):
        model = "tcn" if protocol == "code" else models[i % len(models)]
        if protocol == "code" and f"{task}_{model}_code" not in codes:
            continue
        words = [f"task={task}", f"model={model}", f"protocol={protocol}"]
        words.append(f"budget={budgets[i % len(budgets)]}")
        own_text = ["task.path=my.txt", "task.sha256=ab"] * (task == "char_file")
        config = without_place(composer.compose(words + own_text))
        assert [d for d in differences(config) if d.key not in ("task.path", "task.sha256")] == []
        assert other_amount(config) is None, words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], None),
        (["budget=quick"], None),
        (["trainer.epochs=10"], None),
        (["trainer.epochs=10.0"], None),
        (
            ["trainer.stop_when_solved=true"],
            "stop_when_solved=true instead of stop_when_solved=false",
        ),
        (["task=smnist", "task.eval_size=64"], "eval_size=64 instead of eval_size=all"),
        (
            ["task=smnist", "protocol=paper", "task.valid_size=50000"],
            "valid_size=50000 instead of valid_size=0",
        ),
        (["trainer.epochs=3"], "epochs=3 instead of epochs=10"),
        (["trainer.epochs=0.5", "task=copy"], "epochs=0.5 instead of epochs=50"),
        (["trainer.steps=500"], "steps=500 instead of epochs=10"),
        (["trainer.steps=500", "budget=quick"], "steps=500 instead of steps=5000"),
        (["task.train_size=99"], "train_size=99 instead of train_size=50000"),
        (["task=char_ptb", "task.train_size=99"], "train_size=99 instead of train_size=all"),
        (
            ["trainer.epochs=3", "task.train_size=99"],
            "train_size=99 instead of train_size=50000, epochs=3 instead of epochs=10",
        ),
        (["optimizer.lr=1", "trainer.batch_size=8", "seed=3"], None),
    ],
)
def test_a_training_cut_short_or_drawn_out_is_told(composer, words, said):
    assert other_amount(without_place(composer.compose(words))) == said


@pytest.mark.parametrize("trainer", [None, [], {}, {"steps": "many"}, {"epochs": None}, "x"])
def test_of_what_a_stranger_wrote_no_amount_is_told(composer, trainer):
    config = without_place(composer.compose([])) | {"trainer": trainer, "task": trainer}
    assert other_amount(config) is None
