import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from record_factory import make_record, write_run, write_unfinished

from seqbench.errors import ConfigError
from seqbench.results.collect import collect, read_run, read_unfinished
from seqbench.runs import lock
from seqbench.runs.find import find_run, output_folder, places, run_folders


def test_records_are_found_at_any_depth_and_counted_once(tmp_path):
    records = [make_record(seed=seed) for seed in range(3)]
    write_run(tmp_path, records[0])
    write_run(tmp_path, records[1], place="reference/tcn2018")
    write_run(tmp_path / "copy", records[1])
    folder = write_run(tmp_path, records[2])
    (tmp_path / "runs" / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = collect([tmp_path, tmp_path / "copy", tmp_path / "gone"])
    assert sorted(r.seed for r in found.records) == [0, 1, 2]
    assert found.folders[records[2].run_id] == folder
    assert (found.unreadable, found.unfinished) == ([], [])
    for path in (folder, folder / "record.json"):
        assert collect([path]).records == [records[2]]


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_of_two_copies_the_completed_one_counts(tmp_path, order):
    write_run(tmp_path / "a", make_record(status="failed"))
    write_run(tmp_path / "b", make_record(status="completed"))
    (record,) = collect([tmp_path / name for name in order]).records
    assert record.status == "completed"


def test_what_cannot_be_read_is_told_and_hinders_nobody(tmp_path):
    write_run(tmp_path, make_record(seed=0))
    broken = write_run(tmp_path, make_record(seed=1))
    (broken / "record.json").write_text('{"schema": 9}')
    found = collect([tmp_path])
    assert [r.seed for r in found.records] == [0]
    (line,) = found.unreadable
    assert str(broken) in line
    assert "schema 9" in line


def test_folders_inside_a_run_are_no_runs(tmp_path):
    folder = write_run(tmp_path, make_record())
    inner = folder / "checkpoints"
    inner.mkdir()
    (inner / "config.yaml").write_text("a: 1")
    assert list(run_folders(tmp_path)) == [folder]


def test_an_unfinished_run_tells_its_last_step(tmp_path):
    record = make_record("copy", "gru", seed=4)
    events = '{"step": 10, "split": "valid", "x": 1}\n{"step": 20, "split": "train"}\n{"step": 3'
    folder = write_unfinished(tmp_path, record, events)
    found = collect([tmp_path, tmp_path / "runs", folder])
    assert (found.records, found.unfinished) == ([], [folder])
    run = read_unfinished(folder)
    assert (run.task, run.model, run.run_id, run.steps) == ("copy", "gru", record.run_id, 20)
    assert run.config == record.config
    assert run.status == "unfinished"
    with lock.held(folder, "the run"):
        assert read_run(folder) == replace(run, status="running")


def test_an_unfinished_run_without_events_or_a_readable_config_is_still_one(tmp_path):
    folder = tmp_path / "adding" / "tcn" / "0123456789ab"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("a: [1")
    run = read_unfinished(folder)
    assert run.steps is None
    assert run.config == {}


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    for name in ("aaaa11111111", "aaaa22222222", "bbbb33333333"):
        folder = tmp_path / "runs" / "adding" / "tcn" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("seed: 0")
    kept = tmp_path / "reference" / "tcn2018" / "cccc44444444"
    kept.mkdir(parents=True)
    (kept / "record.json").write_text("{}")
    return tmp_path


def test_a_run_is_found_by_its_id_the_beginning_of_it_or_its_path(output_dir):
    short = output_dir / "runs" / "adding" / "tcn" / "aaaa"  # begins other ids
    short.mkdir()
    (short / "config.yaml").write_text("")
    names = {"b": "bbbb33333333", "bbbb33333333": "bbbb33333333", "cc": "cccc44444444"}
    for run, name in {**names, "aaaa": "aaaa"}.items():
        assert find_run(run, output_dir).name == name
    folder = output_dir / "reference" / "tcn2018" / "cccc44444444"
    for path in (folder, folder / "record.json"):
        assert find_run(str(path), Path("elsewhere")) == folder


def test_a_run_of_another_folder_is_named_with_it(output_dir, tmp_path):
    elsewhere = Path("elsewhere")
    only = tmp_path / "sent" / "by" / "dddd44444444"
    only.mkdir(parents=True)
    (only / "config.yaml").write_text("")
    assert find_run(f"{output_dir}/bbbb", elsewhere).name == "bbbb33333333"
    assert find_run(f"{tmp_path}/sent/dd", elsewhere) == only
    assert find_run(f"{tmp_path}/sent", elsewhere) == only
    assert find_run("dddd", tmp_path / "sent") == only
    for run, message in (
        (f"{output_dir}/runs", "any of 3: aaaa11111111, "),
        (f"{output_dir}/zz", f"no run 'zz' in {output_dir} .*FOLDER/ID"),
        (f"{tmp_path}/none/zz", "there is no folder '.*none'"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_run(run, elsewhere)


def test_the_output_folder_is_found_from_inside_it(output_dir, tmp_path, monkeypatch):
    default = Path("outputs")
    for inside, steps in ((output_dir, "."), (output_dir / "runs" / "adding", "../..")):
        monkeypatch.chdir(inside)
        assert output_folder(default) == Path(steps)
        assert find_run("bbbb", default).name == "bbbb33333333"
        assert places(default) == [Path(steps) / "runs"]
    outside = tmp_path / "project"
    (outside / "outputs" / "runs").mkdir(parents=True)
    monkeypatch.chdir(outside)
    assert output_folder(default) == default  # one that is here goes first
    assert places(Path("outputs")) == [Path("outputs/runs")]
    assert places(output_dir / "reference") == [output_dir / "reference"]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("aaaa", "any of 2: aaaa11111111, aaaa22222222"),
        ("bbbb33333334", "did you mean 'bbbb33333333'"),
        ("zzz", "seqbench runs"),
    ],
)
def test_a_run_that_is_not_found_is_refused_with_candidates(output_dir, run, message):
    with pytest.raises(ConfigError, match=message):
        find_run(run, output_dir)


def test_collecting_costs_little_more_than_reading_the_files(tmp_path):
    for seed in range(400):
        write_run(tmp_path, make_record(seed=seed))
    paths = list(tmp_path.rglob("record.json"))

    def seconds(work) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def parse():
        for path in paths:
            json.loads(path.read_bytes())

    plain = min(seconds(parse) for _ in range(3))
    ours = min(seconds(lambda: collect([tmp_path])) for _ in range(3))
    assert ours < 12 * plain
