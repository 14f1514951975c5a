"""Run folders that somebody else sent: whatever is in them, no command of ours runs their code,
writes outside of them, hangs, or lets them write to the terminal.
"""

import csv
import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save as to_bytes
from small_run import history

from seqbench.runs.config_file import read_config
from seqbench.runs.run import Run
from seqbench.training import checkpoint

SECRET = "what only the environment knows"
ANSI = "\x1b[31m\x1b]0;title\x07\u202e[bold red]evil[/] [link=file:///etc]x[/link]\r\n\x00\x9b2J"
LONG = "x" * 100_000
VERY_LONG = LONG * 100


@pytest.fixture
def sent(undisturbed, copied, tmp_path, monkeypatch):
    """A run folder as it was sent, its record with it; hostile code would touch `marker`."""
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    return Run.of(copied(undisturbed)).folder


@pytest.fixture
def unfinished(sent):
    """The same without its record."""
    (sent / "record.json").unlink()
    return sent


@pytest.fixture
def harmless(seqbench, tmp_path):
    """Runs a command that must not do any harm; its result."""

    def command(*words):
        done = seqbench(*words)
        assert not (tmp_path / "marker").exists(), "code of the folder's was run"
        for text in (done.out, done.err):
            bad = {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs")}
            assert not bad, f"{words[0]} wrote {bad}"
            assert SECRET not in text
            assert "Traceback" not in text
        assert len(done.out) < 1_000_000
        assert len(done.err) < 10_000
        if done.code:
            assert done.code in (1, 2, 3)
            assert done.out == ""
            last = done.err.splitlines()[-1]
            assert last.startswith("error: ")
        return done

    return command


@pytest.fixture
def refused(harmless):
    """Runs a command that must be refused, in one line."""

    def command(*words):
        done = harmless(*words)
        assert done.code, f"{words} was done"
        assert done.err.count("\n") == 1
        return done.err

    return command


def write_config(folder, change) -> None:
    path = folder / "config.yaml"
    config = read_config(path)
    change(config)
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    path.write_text(yaml.dump(config, Dumper=dumper, sort_keys=False))


# Code by name

TARGETS = [
    *("os.system", "posix.system", "builtins.eval", "subprocess.call", "pathlib.Path.touch"),
    *("hydra.utils.call", "hydra._internal.instantiate._instantiate2.instantiate"),
    # Ours, and more than what a run is made of.
    *("seqbench.config.build.build", "seqbench.experiment.run", "seqbench.cli.main.main"),
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
    original = (unfinished / "config.yaml").read_text()
    for target in TARGETS:
        (unfinished / "config.yaml").write_text(original)
        write_config(unfinished, lambda c, t=target: c.update(model={"_target_": t} | CALL))
        refused("eval", unfinished)
        refused("train", "--resume", unfinished)


@pytest.mark.parametrize("place", PLACES)
def test_no_place_gets_code_run(place, unfinished, refused):
    node = {"_target_": "seqbench.models.tcn.torch.os.system"} | CALL
    write_config(unfinished, lambda config: PLACES[place](config, node))
    for words in (["eval"], ["train", "--resume"], ["generate", "--prompt", "a"]):
        refused(*words, unfinished)


def test_what_is_trusted_by_name_may_be_built(sent, harmless, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "theirs.py").write_text("from seqbench.models.tcn import TCN\nclass Mine(TCN): ...")
    write_config(sent, lambda config: config["model"].update(_target_="theirs.Mine"))
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


@pytest.mark.parametrize("tag", TAGS)
def test_tags_of_yaml_build_nothing(tag, unfinished, refused, harmless):
    tag = tag.replace("$MARKER", os.environ["MARKER"])
    path = unfinished / "config.yaml"
    text = path.read_text()
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

    original = (unfinished / "config.yaml").read_text()
    for reference in REFERENCES:
        (unfinished / "config.yaml").write_text(original)
        write_config(unfinished, lambda config, to=reference: change(config, to))
        refused("train", "--resume", unfinished)
        refused("eval", unfinished)
        harmless("show", unfinished)


# Where a run writes


@pytest.mark.parametrize(
    "choices",
    [
        {"task": "../../../..", "model": "tcn"},
        {"task": "adding", "model": "../../../../elsewhere"},
        {"task": "/tmp", "model": "elsewhere"},
        {"task": "adding/../../..", "model": "tcn"},
        {"task": "copy", "model": "tcn"},
        {"task": "adding"},
        {},
        {"task": "adding", "model": "tcn", "more": "x"},
        {"task": "\x00", "model": "tcn"},
        {"task": LONG, "model": "tcn"},
        {"task": ANSI, "model": "tcn"},
        {"task": 1, "model": None},
        None,
        "adding",
    ],
    ids=range(14),
)
def test_a_run_that_is_continued_writes_nowhere_else(choices, unfinished, refused, tmp_path):
    write_config(unfinished, lambda config: config.update(choices=choices))
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


@pytest.mark.parametrize(
    "name",
    [
        *("events.jsonl", "history.jsonl", "log.txt", ".lease", ".lock", ".config.yaml.draft"),
        *("config.yaml", "checkpoints/last.safetensors", "checkpoints/.last.safetensors.draft"),
    ],
)
def test_links_are_not_written_through(name, unfinished, refused, tmp_path):
    mine = tmp_path / "mine"
    link = unfinished / name
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


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def look(harmless, folder):
    """Every command that looks at folders."""
    read_all(harmless, folder)
    for words in (["eval"], ["train", "--resume"], ["generate", "--prompt", "a"]):
        harmless(*words, folder)


FILES = ["record.json", "config.yaml", "events.jsonl", ".lease", "checkpoints/best.safetensors"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", FILES)
def test_pipes_are_not_waited_for(name, sent, harmless, refused):
    (sent / name).unlink(missing_ok=True)
    os.mkfifo(sent / name)
    look(harmless, sent)
    (sent / "record.json").unlink()
    if name != "record.json":
        refused("train", "--resume", sent)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["/dev/zero", "/proc/self/environ", "loop", "checkpoints"])
def test_links_to_what_is_no_file_of_a_run(name, sent, harmless):
    for file in FILES:
        path, kept = sent / file, sent / "kept"
        if path.exists():
            path.rename(kept)
        path.symlink_to(path if name == "loop" else sent / name)
        look(harmless, sent)
        path.unlink()
        if kept.exists():
            kept.rename(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", FILES)
def test_files_larger_than_memory(name, sent, harmless):
    # All of it a hole, which takes no room on the disk of whoever sends it.
    with (sent / name).open("ab") as file:
        file.truncate(2**42)
    look(harmless, sent)


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
    "long": f"seed: {VERY_LONG}",
    "long key": f"{LONG}: 1",
    "many documents": "a: 1\n---\nb: 2\n",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_that_are_none(name, unfinished, refused, harmless):
    content = CONFIGS[name].encode("utf-8", "surrogatepass")
    (unfinished / "config.yaml").write_bytes(content)
    refused("eval", unfinished)
    refused("train", "--resume", unfinished)
    output_dir = unfinished.parents[3]
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
    original = (unfinished / "config.yaml").read_text()
    for value in ODD_VALUES:
        (unfinished / "config.yaml").write_text(original)

        def change(config, value=value):
            for node in nodes:
                config = config[node]
            config[name] = value

        write_config(unfinished, change)
        harmless("eval", unfinished)


def test_more_threads_than_a_machine_has(unfinished, refused):
    write_config(unfinished, lambda config: config.update(threads=100_000))
    refused("eval", unfinished)


# Records


def hostile(value, text):
    """Every text and key of a record, made hostile."""
    if isinstance(value, dict):
        return {f"{k}{text}": hostile(v, text) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(item, text) for item in value]
    return value + text if isinstance(value, str) else value


FREE = ("config", "notes", "measured", "versions", "data", "metrics")
FORMATS = ("rich", "markdown", "latex", "html", "csv", "json")


def write_record(folder, change) -> None:
    record = json.loads((folder / "record.json").read_text())
    change(record)
    (folder / "record.json").write_text(json.dumps(record))


def read_all(harmless, folder, where="status=completed"):
    """Every command that reads records; the output of all."""
    output_dir = folder.parents[3]
    texts = [harmless("table", "--output-dir", output_dir, "-f", form).out for form in FORMATS]
    for words in (
        ["runs", "--output-dir", output_dir],
        ["runs", "--output-dir", output_dir, "--where", where],
        ["show", folder],
        ["compare", folder, folder],
        ["show", folder.name[:6], "--output-dir", output_dir],
        ["sql", "select * from runs", "--output-dir", output_dir],
        ["sql", "select * from cells", "--output-dir", output_dir, "-f", "csv"],
        ["sql", "select * from events limit 2", "--output-dir", output_dir, "-f", "json"],
        ["report", "--output-dir", output_dir, "-o", output_dir / "page.html"],
    ):
        texts.append(harmless(*words).out)
    return texts


@pytest.mark.parametrize("text", [ANSI, LONG, "\ud800", "a\nb\x85c\u2028d"], ids=range(4))
def test_texts_in_a_record_are_only_texts(text, sent, harmless):
    def change(record):
        for key in FREE:
            record[key] = hostile(record[key], text)
        for key in ("run_id", "task", "model", "budget", "protocol", "source"):
            record[key] += text
        record["score"]["metric"] += text
        record["score"]["split"] += text
        record["error"] = text
        record["status"] = "completed"

    write_record(sent, change)
    shown = read_all(harmless, sent)
    if text == ANSI:
        assert any("[bold red]evil[/]" in out for out in shown)  # as it is, and not in red


FORMULA = "=HYPERLINK(1)"
SCRIPT = "<script>alert(1)</script>"
MACRO = "\\input{/etc/passwd}"


def test_names_are_no_code_where_a_table_is_opened(sent, harmless):
    def change(record):
        record["task"] = SCRIPT
        record["model"] = FORMULA
        record["budget"] = MACRO
        record["score"]["metric"] = MACRO
        record["metrics"] = {"test": {MACRO: 0.5}}

    write_record(sent, change)
    output_dir = sent.parents[3]
    for words in (["table"], ["sql", "select task, model, budget from cells"]):
        (row,) = csv.DictReader(
            io.StringIO(harmless(*words, "-f", "csv", "--output-dir", output_dir).out)
        )
        assert row["model"] == f"'{FORMULA}"
    page = harmless("table", "-f", "html", "--output-dir", output_dir).out
    assert "<script" not in page
    assert "alert(1)" in page
    assert "\\input" not in harmless("table", "-f", "latex", "--output-dir", output_dir).out
    shown = harmless("table", "-f", "markdown", "--output-dir", output_dir).out
    assert not re.search(r"(?<!\\)<script", shown)


ODD_LINES = {
    "history.jsonl": [
        '{"metric": ["a"]}',
        '{"metric": 7}',
        '{"total_steps": 1e400, "step": -1e400}',
    ],
    "events.jsonl": [
        '{"step": 1e400, "split": "train", "loss": 1}',
        '{"step": 3, "split": "train", "loss": 1' + "0" * 400 + "}",
        '{"step": 4, "split": ["valid"], "mse": -1e400}',
    ],
}


@pytest.mark.parametrize("is_over", [True, False])
@pytest.mark.parametrize("name", ODD_LINES)
def test_odd_lines_in_a_log_are_passed_over(name, is_over, sent, harmless):
    if not is_over:
        (sent / "record.json").unlink()
    original = (sent / name).read_text()
    for line in ODD_LINES[name]:
        (sent / name).write_text(f"{original}{line}\n")
        for words in (["show", sent], ["compare", sent, sent]):
            assert harmless(*words).code == 0
        assert harmless("runs", "--output-dir", sent.parents[3]).code == 0


def test_a_record_of_a_version_to_come_is_refused_by_name(sent, harmless):
    write_record(sent, lambda record: record.update(schema=2, seed={"new": "meaning"}))
    newer = "schema 2 is newer than this seqbench reads (1): upgrade seqbench"
    for words in (["show", sent], ["compare", sent, sent], ["train", "--resume", sent]):
        done = harmless(*words)
        assert done.code == 1
        assert newer in done.err
    for words in (["table"], ["runs"], ["sql", "from runs"]):
        done = harmless(*words, "--output-dir", sent.parents[3])
        assert done.code == 0
        assert done.err.startswith(f"left out: {sent / 'record.json'}: {newer}\n")
    assert harmless("eval", sent).code == 0  # which reads no record


def test_numbers_in_a_record_are_only_numbers(sent, harmless):
    path = sent / "record.json"
    original = json.loads(path.read_text())
    for number in ("NaN", "-Infinity", "1e400", "1e308", "-1e308", "1" + "0" * 4000, "0.1e-400"):
        record = json.dumps(numbered(original))
        path.write_text(record.replace('"NUMBER"', number))
        read_all(harmless, sent, where="score<1e300, seed>0")
    # Means and spreads of what is barely finite.
    for seed, value in enumerate((1e308, 1.5e308, -1e308, 1.7e308, -1.7e308)):
        folder = sent.parent / f"{seed}"
        folder.mkdir()
        record = original | {"seed": seed, "run_id": str(seed)}
        record["score"] = record["score"] | {"value": value, "metric": "accuracy"}
        (folder / "record.json").write_text(json.dumps(record))
    path.unlink()
    read_all(harmless, sent.parent / "0")


def numbered(value):
    if isinstance(value, dict):
        return {k: v if k == "schema" else numbered(v) for k, v in value.items()}
    if isinstance(value, list):
        return [numbered(item) for item in value]
    return "NUMBER" if isinstance(value, int | float) and not isinstance(value, bool) else value


@pytest.mark.parametrize("depth", [40, 60, 300, *range(900, 1000, 25), 100_000])
def test_nesting_is_no_way_out(depth, sent, harmless):
    text = (sent / "record.json").read_text()
    for nested in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        for key in ("config", "measured", "notes"):
            deep = json.loads(text) | {key: {"deep": "DEEP"}}
            (sent / "record.json").write_text(json.dumps(deep).replace('"DEEP"', nested))
            for words in (["table"], ["runs", "--where", "deep=1"]):
                harmless(*words, "--output-dir", sent.parents[3])
            harmless("show", sent)
            harmless("compare", sent, sent)


# Checkpoints


def safetensors(tensors, facts):
    text = facts if isinstance(facts, str) else json.dumps(facts)
    return to_bytes(tensors, {"facts": text, "digest": checkpoint.digest(tensors, text)})


def changes(tensors, facts):
    """Checkpoints whose digest is right, and nothing else."""
    first = next(name for name in tensors if name.startswith("model."))
    yield {name: tensor[..., None] for name, tensor in tensors.items()}, facts
    yield tensors | {first: tensors[first].flatten()[:1]}, facts
    yield tensors | {first: tensors[first][:0]}, facts
    yield {name: tensor for name, tensor in tensors.items() if name != first}, facts
    yield tensors | {ANSI.replace("\x00", ""): tensors[first].clone()}, facts
    yield {}, facts
    yield tensors, {}
    yield tensors, []
    yield tensors, "7"
    yield tensors, "[" * 100_000
    yield tensors, dict.fromkeys(facts)
    yield tensors, dict.fromkeys(facts, ANSI)
    yield tensors, {key: [1, {"a": -1}] for key in facts}
    for key, value in facts.items():
        yield tensors, {k: v for k, v in facts.items() if k != key}
        for odd in (10**400, -1, 1e400, LONG, [], {"0": {"x": 1}}, {"step": ANSI}):
            yield tensors, facts | {key: odd}
        if isinstance(value, dict):
            for inner in value:
                for odd in (None, 10**30, ANSI, []):
                    yield tensors, facts | {key: value | {inner: odd}}


def test_best_weights_of_any_shape(sent, harmless):
    path = sent / "checkpoints" / checkpoint.BEST
    loaded = checkpoint.load(path)
    for tensors, facts in changes(*loaded):
        path.write_bytes(safetensors(tensors, facts))
        harmless("eval", sent)
    tensors, facts = loaded
    path.write_bytes(safetensors({k: v * float("nan") for k, v in tensors.items()}, facts))
    done = harmless("eval", sent)
    assert json.loads(done.out, parse_constant=pytest.fail)["mse"] is None


def test_last_checkpoints_of_any_shape(cut_off, copied, harmless):
    config = copied(cut_off)
    folder = Run.of(config)
    (folder.checkpoints / checkpoint.PREVIOUS).unlink()
    path = folder.checkpoints / checkpoint.LAST
    events = folder.events_path.read_bytes()
    for tensors, facts in changes(*checkpoint.load(path)):
        path.write_bytes(safetensors(tensors, facts))
        harmless("train", "--resume", folder.folder)
        folder.record_path.unlink(missing_ok=True)
        folder.events_path.write_bytes(events)
    assert ("completed", 20) in history(config)  # some of it is harmless


HEADERS = [
    (2**63 - 1).to_bytes(8, "little") + b"{}",
    (10**8).to_bytes(8, "little") + b"{" * 1000,
    (2).to_bytes(8, "little") + b"{}",
    (0).to_bytes(8, "little"),
    (8).to_bytes(8, "little") + b"\xff" * 8,
    b"PK\x03\x04" + b"\x00" * 100,
    b"\x80\x04cposix\nsystem\n(S'touch marker'\ntR.",
]


@pytest.mark.parametrize("content", HEADERS, ids=range(len(HEADERS)))
def test_headers_of_checkpoints(content, sent, refused, cut_off, copied):
    for path in (sent / "checkpoints").iterdir():
        path.write_bytes(content)
    assert "cannot be read" in refused("eval", sent)
    (sent / "record.json").unlink()
    assert "--force" in refused("train", "--resume", sent)


# Everything else that is read

EVENTS = [
    b'{"step": NaN}\n{"step": Infinity}\n',
    b'{"step": 1' + b"0" * 4000 + b"}\n",
    b'{"step": 1' + b"0" * 9000 + b"}\n",
    b'{"step": "' + ANSI.encode() + b'"}\n',
    b'{"step": [[]], "split": {}}\n[]\n7\nnull\n',
    b"[" * 100_000 + b"\n",
    b"\xff\xfe\x00" * 100,
    b'{"a": "' + VERY_LONG.encode() + b'", "step": 3}\n',
    b'{"step": true, "split": "valid", "mse": 1e400}\n',
    b"\n" * 1000,
]


@pytest.mark.parametrize("content", EVENTS, ids=range(len(EVENTS)))
def test_events(content, unfinished, harmless):
    (unfinished / "events.jsonl").write_bytes(content)
    assert harmless("runs", "--output-dir", unfinished.parents[3]).code == 0
    assert harmless("show", unfinished).code == 0
    assert harmless("compare", unfinished, unfinished).code == 0


@pytest.mark.parametrize(
    "content", [ANSI.encode(), VERY_LONG.encode(), b"\xff\xfe", b""], ids=range(4)
)
def test_leases(content, unfinished, harmless):
    (unfinished / ".lease").write_bytes(content)
    done = harmless("train", "--resume", unfinished)
    assert done.code == 1
    assert "is being trained by" in done.err


def test_names_of_folders(sent, harmless, tmp_path):
    evil = sent.parent / ANSI.replace("\x00", "").replace("/", "")
    evil.mkdir()
    output_dir = sent.parents[3]
    for name, content in (("record.json", "{"), ("config.yaml", "{}"), ("events.jsonl", "")):
        (evil / name).write_text(content)
        for words in (["table"], ["runs"]):
            assert harmless(*words, "--output-dir", output_dir).code == 0
        harmless("show", evil)
        harmless("show", evil.name[:3], "--output-dir", output_dir)
        harmless("show", "\x1b[31n", "--output-dir", output_dir)
        harmless("eval", evil)
        harmless("train", "--resume", evil)


def test_folders_in_folders(harmless, tmp_path):
    os.chdir(tmp_path)
    try:
        for _ in range(1500):
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
        os.chdir(tmp_path)
        assert harmless("table", "d").code == 0
        assert harmless("table", "--output-dir", "d").code == 0
    finally:
        # Deeper than Python's own rmtree can follow, with which pytest tidies up.
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_the_installed_command(unfinished, tmp_path):
    """What the tests above run in their own process, where torch is loaded already."""
    node = {"_target_": "torch.optim.optimizer.torch.os.system"} | CALL
    write_config(unfinished, lambda config: config.update(model=node))
    command = [Path(sys.executable).with_name("seqbench"), "eval", unfinished]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: the run names torch.optim.optimizer.torch.os.system")
    assert not (tmp_path / "marker").exists()
