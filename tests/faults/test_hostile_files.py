"""Foreign records, logs and checkpoints make no command hang or print control codes."""

import csv
import io
import json
import os
import re
import subprocess

import pytest
from hostile import ANSI, LONG, look, read_all
from safetensors.torch import save as to_bytes
from small_run import history

from seqbench.runs.run import Run
from seqbench.training import checkpoint

VERY_LONG = LONG * 100

FILES = ["record.json", "config.yaml", "events.jsonl", ".lease", "checkpoints/best.safetensors"]


@pytest.mark.parametrize("name", FILES)
def test_pipes_are_not_waited_for(name, sent, harmless, refused):
    (sent / name).unlink(missing_ok=True)
    os.mkfifo(sent / name)
    look(harmless, sent)
    (sent / "record.json").unlink()
    if name != "record.json":
        refused("train", "--resume", sent)


@pytest.mark.slow
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


@pytest.mark.parametrize("name", FILES)
def test_files_larger_than_memory(name, sent, harmless):
    # All of it a hole, which takes no room on the disk of whoever sends it.
    with (sent / name).open("ab") as file:
        file.truncate(2**42)
    look(harmless, sent)


# Records


def hostile(value, text):
    """Append a hostile text to each string and key of a record."""
    if isinstance(value, dict):
        return {f"{k}{text}": hostile(v, text) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(item, text) for item in value]
    return value + text if isinstance(value, str) else value


FREE = ("config", "notes", "measured", "versions", "data", "metrics")


def write_record(folder, change) -> None:
    record = json.loads((folder / "record.json").read_text())
    change(record)
    (folder / "record.json").write_text(json.dumps(record))


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


@pytest.mark.slow
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


@pytest.mark.parametrize("depth", [60, 950, 100_000])
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
    """Yield checkpoints in which only the digest is right."""
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_headers_of_checkpoints(sent, refused):
    record = (sent / "record.json").read_bytes()
    for content in HEADERS:
        (sent / "record.json").write_bytes(record)
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


def test_events(unfinished, harmless):
    for content in EVENTS:
        (unfinished / "events.jsonl").write_bytes(content)
        for words in (["runs", "--output-dir", unfinished.parents[3]], ["show", unfinished]):
            assert harmless(*words).code == 0
        assert harmless("compare", unfinished, unfinished).code == 0


def test_leases(unfinished, harmless):
    for content in (ANSI.encode(), VERY_LONG.encode(), b"\xff\xfe", b""):
        (unfinished / ".lease").write_bytes(content)
        done = harmless("train", "--resume", unfinished)
        assert done.code == 1
        assert "is being trained by another process" in done.err


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
