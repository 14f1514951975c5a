"""No command runs code from a foreign run's config, or writes outside of the run's folder."""

import os
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest
from hostile import ANSI, LONG, changed, everything

# Code by name

TARGETS = [
    *("os.system", "posix.system", "builtins.eval", "subprocess.call", "pathlib.Path.touch"),
    *("hydra.utils.call", "hydra._internal.instantiate._instantiate2.instantiate"),
    # Ours, and more than what a run is made of.
    *("seqbench.config.compose.build", "seqbench.experiment.run", "seqbench.cli.main.main"),
    "seqbench.runs.atomic.write",
    # Ours by its spelling, and not by what is found.
    *("seqbench.models.tcn.torch.os.system", "seqbench.models.tcn.torch.load"),
    *("seqbench.training.checkpoint.atomic.write", "seqbench.training.checkpoint.Path.touch"),
    *("seqbench.training.state.random.seed", "seqbench.tasks.task.np.load"),
    *("torch.optim.adam.torch.hub.load", "torch.optim.Optimizer.__init__.__globals__"),
    *("seqbench.models.tcn.TCN.mro", "seqbench.models.tcn.TCN.__reduce__"),
    *("seqbench.models.tcn.TCN.__class__", "seqbench.models.tcn.TCN.__init__.__builtins__"),
    # Spelled in a way that might be overlooked.
    *(" os.system", "os.system ", "seqbench.models/../../os.system", "seqbench.modelsos.system"),
    *(".os.system", "seqbench.models..os.system", "\uff4f\uff53.system", "seqbench.models.tcn", ""),
    *(ANSI, LONG, ["os.system"], {"_target_": "os.system", "command": "touch $MARKER"}, 7, True),
]
CALL = {"command": "touch $MARKER", "_partial_": False}
PLACES = {
    "model": lambda config, node: config.update(model=node),
    "schedule": lambda config, node: config.update(schedule=node),
    "value": lambda config, node: config["model"].update(dropout=node),
    "list": lambda config, node: config["model"].update(channels=[4, node]),
    "arguments": lambda config, node: config["optimizer"].update(_args_=[node]),
    "more arguments": lambda config, node: config["optimizer"].update(defaults=node),
    "recipe": lambda config, node: config.update(recipe={"source": node}),
    "new key": lambda config, node: config.update(hydra={"callbacks": [node]}),
}


def test_no_spelling_gets_code_run(unfinished, refused):
    for target in TARGETS:
        changed(unfinished, lambda c, t=target: c.update(model={"_target_": t} | CALL))
        refused("eval", unfinished)
        refused("train", "--resume", unfinished)


def test_no_place_gets_code_run(unfinished, refused):
    node = {"_target_": "seqbench.models.tcn.torch.os.system"} | CALL
    for place in PLACES:
        changed(unfinished, lambda config, place=place: PLACES[place](config, node))
        for words in (["eval"], ["train", "--resume"], ["generate", "--prompt", "a"]):
            refused(*words, unfinished)


def test_what_is_trusted_by_name_may_be_built(sent, harmless, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "theirs.py").write_text("from seqbench.models.tcn import TCN\nclass Mine(TCN): ...")
    changed(sent, lambda config: config["model"].update(_target_="theirs.Mine"))
    assert "--trust theirs.Mine" in harmless("eval", sent).err
    assert harmless("eval", sent, "--trust", "theirs").code == 0


TAGS = [
    "!!python/object/apply:os.system ['touch $MARKER']",
    "!!python/object/apply:subprocess.call [[touch, $MARKER]]",
    "!!python/object/new:os.system ['touch $MARKER']",
    "!!python/name:os.system ''",
    "!!python/module:os ''",
    "!!python/object:seqbench.experiment.Experiment {}",
    "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch $MARKER']",
    "!unknown {}",
    "!!timestamp 2020-01-01",
    "!!binary aGFybQ==",
    "!!set {a, b}",
    "!!omap [a: 1]",
]


def test_tags_of_yaml_build_nothing(unfinished, refused, harmless):
    path = unfinished / "config.yaml"
    text = path.read_text()
    for tag in (tag.replace("$MARKER", os.environ["MARKER"]) for tag in TAGS):
        for content in (tag, f"{text}\nextra: {tag}", text.replace("seed: 0", f"seed: {tag}")):
            path.write_text(content)
            refused("eval", unfinished)
            refused("train", "--resume", unfinished)
            for command in (["show", unfinished], ["compare", unfinished, unfinished], ["runs"]):
                assert harmless(*command).code == 0


REFERENCES = [
    "${oc.env:SECRET}",
    "x${oc.env:SECRET}",
    "${oc.decode:${oc.env:SECRET}}",
    "\\${oc.env:SECRET}",
    "${seed}",
    "???",
    "${",
]


@pytest.mark.parametrize("place", ["data_dir", "task", "recipe", "choices", "model"])
def test_references_are_not_resolved(place, unfinished, refused, harmless):
    def change(config, reference):
        if place == "data_dir":
            config["data_dir"] = reference
        elif place == "task":
            config["task"] = {
                "_target_": "seqbench.tasks.char_lm.CharFile",
                "path": reference,
                "length": 16,
                "context": 4,
                "train_size": None,
                "eval_size": None,
            }
        elif place == "recipe":
            config["recipe"] = {"source": {"deep": [reference]}}
        elif place == "choices":
            config["choices"]["task"] = reference
        else:
            config["model"]["dropout_kind"] = reference

    for reference in REFERENCES:
        changed(unfinished, lambda config, to=reference: change(config, to))
        refused("train", "--resume", unfinished)
        refused("eval", unfinished)
        harmless("show", unfinished)


# Where a run writes


CHOICES = [
    {"task": "../../../..", "model": "tcn"},
    {"task": "adding", "model": "../../../../elsewhere"},
    {"task": "/tmp", "model": "elsewhere"},
    {"task": "adding/../../..", "model": "tcn"},
    {"task": "copy", "model": "tcn"},
    {"task": "adding"},
    {"task": "adding", "model": "tcn", "more": "x"},
    *({"task": name, "model": "tcn"} for name in ("\x00", LONG, ANSI)),
    *({"task": 1, "model": None}, {}, None, "adding"),
]


def test_a_run_that_is_continued_writes_nowhere_else(unfinished, refused, tmp_path):
    for choices in CHOICES:
        changed(unfinished, lambda config, choices=choices: config.update(choices=choices))
        before = everything(tmp_path)
        refused("train", "--resume", unfinished)
        refused("train", "--resume", unfinished, "--force")
        assert everything(tmp_path) == before


def test_a_shallow_folder_is_no_run(unfinished, refused, tmp_path):
    for name in ("config.yaml", "runs/config.yaml"):
        path = unfinished.parents[3] / name
        path.write_bytes((unfinished / "config.yaml").read_bytes())
        refused("train", "--resume", path.parent)
    # As near to the root of the file system as a folder can be.
    os.chdir("/")
    shallow = tmp_path / "s"
    shallow.mkdir()
    (shallow / "config.yaml").write_bytes((unfinished / "config.yaml").read_bytes())
    refused("train", "--resume", shallow)


NAMES = [
    *("events.jsonl", "history.jsonl", "log.txt", ".lease", ".lock", ".config.yaml.draft"),
    *("config.yaml", "checkpoints/last.safetensors", "checkpoints/.last.safetensors.draft"),
]


@pytest.mark.parametrize("name", NAMES)
def test_links_are_not_written_through(name, unfinished, refused, tmp_path):
    mine, link = tmp_path / "mine", unfinished / name
    content = link.read_bytes() if link.exists() else b"precious"
    mine.write_bytes(content)
    link.unlink(missing_ok=True)
    link.symlink_to(mine)
    assert "is a link" in refused("train", "--resume", unfinished)
    refused("train", "--resume", unfinished, "--force")
    assert mine.read_bytes() == content


def test_a_linked_folder_is_not_emptied(unfinished, refused, tmp_path):
    mine = tmp_path / "mine"
    (unfinished / "checkpoints").rename(mine)
    (mine / "precious").write_text("")
    (unfinished / "checkpoints").symlink_to(mine)
    before = everything(mine)
    refused("train", "--resume", unfinished, "--force")
    assert everything(mine) == before


# Configurations that are none


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join(lines)


CONFIGS = {
    "bomb": bomb(),
    "itself": "a: &a\n  b: *a\n",
    "deep": "[" * 100_000,
    "deep mapping": "{a: " * 900 + "}" * 900,
    "deep blocks": "\n".join(" " * i + "a:" for i in range(2000)),
    "numbers as keys": "1: 2\nnull: 3\n2020-01-01: 4\n",
    "lists as keys": "? [a, b]\n: c\n",
    "list": "[1, 2]",
    "text": "hello",
    "nothing": "null",
    "bytes": "\x00\x01",
    "control": f"{ANSI}: 1",
    "long": f"seed: {LONG * 100}",
    "long key": f"{LONG}: 1",
    "many documents": "a: 1\n---\nb: 2\n",
}


def test_configs_that_are_none(unfinished, refused, harmless):
    output_dir = unfinished.parents[3]
    for content in CONFIGS.values():
        (unfinished / "config.yaml").write_bytes(content.encode("utf-8", "surrogatepass"))
        refused("eval", unfinished)
        refused("train", "--resume", unfinished)
        assert harmless("show", unfinished).code == 0
        assert harmless("runs", "--output-dir", output_dir).code == 0
        assert harmless("runs", "--output-dir", output_dir, "--where", "seed=0").code in (0, 2)
        assert harmless("compare", unfinished, unfinished).code == 0


ODD_VALUES = [
    *(10**400, -1, 1e400, float("nan"), None, [], {}, "", LONG, ANSI, True, [[[[[1]]]]], {"a": 1}),
    *({1: 2}, {None: 1}, 2**63, 0.5),
]


@pytest.mark.parametrize(
    "key",
    [
        *("seed", "device", "threads", "data_dir", "output_dir", "budget", "protocol", "recipe"),
        *("choices", "model", "task.length", "task.train_size", "task.eval_size", "model.channels"),
        *("model.kernel_size", "model.dropout", "optimizer.lr", "schedule.warmup"),
        *("trainer.batch_size", "trainer.precision", "trainer.accumulate", "trainer.compile"),
    ],
)
def test_odd_values_cost_a_line_at_most(key, unfinished, harmless):
    *nodes, name = key.split(".")
    for value in ODD_VALUES:

        def change(config, value=value):
            reduce(dict.__getitem__, nodes, config)[name] = value

        changed(unfinished, change)
        harmless("eval", unfinished)


def test_more_threads_than_a_machine_has(unfinished, refused):
    changed(unfinished, lambda config: config.update(threads=100_000))
    refused("eval", unfinished)


def test_the_installed_command(unfinished, tmp_path):
    """Run the hostile configs in a new process, which has not loaded torch."""
    node = {"_target_": "torch.optim.optimizer.torch.os.system"} | CALL
    changed(unfinished, lambda config: config.update(model=node))
    command = [Path(sys.executable).with_name("seqbench"), "eval", unfinished]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: the run names torch.optim.optimizer.torch.os.system")
    assert not (tmp_path / "marker").exists()
