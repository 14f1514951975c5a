import json
import time
from pathlib import Path

import pytest
from record_factory import make_record, write_run, write_unfinished

from seqbench.errors import ConfigError
from seqbench.results.collect import (
    collect,
    find_run,
    read_unfinished,
    run_folders,
)


def test_records_are_found_at_any_depth(tmp_path):
    records = [make_record(seed=seed) for seed in range(3)]
    write_run(tmp_path, records[0])
    write_run(tmp_path, records[1], place="reference/tcn2018")
    folder = write_run(tmp_path, records[2])
    found = collect([tmp_path])
    assert sorted(r.seed for r in found.records) == [0, 1, 2]
    assert found.folders[records[2].run_id] == folder
    assert found.unreadable == []
    assert found.unfinished == []


@pytest.mark.parametrize("given", ["folder", "record"])
def test_a_run_may_be_given_itself(tmp_path, given):
    folder = write_run(tmp_path, make_record())
    path = folder if given == "folder" else folder / "record.json"
    assert [r.seed for r in collect([path]).records] == [0]


def test_a_run_found_twice_counts_once(tmp_path):
    write_run(tmp_path / "a", make_record())
    write_run(tmp_path / "b", make_record())
    assert len(collect([tmp_path, tmp_path / "a", tmp_path / "b"]).records) == 1


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


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert collect([tmp_path / "gone"]).records == []


def test_folders_inside_a_run_are_no_runs(tmp_path):
    folder = write_run(tmp_path, make_record())
    inner = folder / "checkpoints"
    inner.mkdir()
    (inner / "config.yaml").write_text("a: 1")
    assert list(run_folders(tmp_path)) == [folder]


def test_links_that_lead_back_are_not_followed(tmp_path):
    write_run(tmp_path, make_record())
    (tmp_path / "runs" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(collect([tmp_path]).records) == 1


def test_an_unfinished_run_tells_its_last_step(tmp_path):
    record = make_record("copy", "gru", seed=4)
    events = '{"step": 10, "split": "valid", "x": 1}\n{"step": 20, "split": "train"}\n{"step": 3'
    folder = write_unfinished(tmp_path, record, events)
    found = collect([tmp_path])
    assert found.records == []
    assert found.unfinished == [folder]
    run = read_unfinished(folder)
    assert (run.task, run.model, run.run_id, run.steps) == ("copy", "gru", record.run_id, 20)
    assert run.config == record.config
    assert run.status == "unfinished"


def test_an_unfinished_run_that_is_found_twice_counts_once(tmp_path):
    folder = write_unfinished(tmp_path, make_record(), "")
    assert collect([tmp_path, tmp_path / "runs", folder]).unfinished == [folder]


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


@pytest.mark.parametrize("run", ["bbbb33333333", "bbbb", "b"])
def test_a_run_is_found_by_its_id_or_the_beginning_of_it(output_dir, run):
    assert find_run(run, output_dir).name == "bbbb33333333"


def test_a_reference_run_is_found_too(output_dir):
    assert find_run("cc", output_dir).name == "cccc44444444"


def test_a_run_is_found_by_its_path(output_dir):
    folder = output_dir / "reference" / "tcn2018" / "cccc44444444"
    assert find_run(str(folder), Path("elsewhere")) == folder
    assert find_run(str(folder / "record.json"), Path("elsewhere")) == folder


def test_an_id_that_begins_another_one_is_itself(output_dir):
    short = output_dir / "runs" / "adding" / "tcn" / "aaaa"
    short.mkdir()
    (short / "config.yaml").write_text("")
    assert find_run("aaaa", output_dir) == short


def test_an_ambiguous_run_is_refused_with_its_candidates(output_dir):
    with pytest.raises(ConfigError, match="any of 2: aaaa11111111, aaaa22222222"):
        find_run("aaaa", output_dir)


def test_an_unknown_run_gets_a_near_miss_or_a_way_to_find_out(output_dir):
    with pytest.raises(ConfigError, match="did you mean 'bbbb33333333'"):
        find_run("bbbb33333334", output_dir)
    with pytest.raises(ConfigError, match="seqbench runs"):
        find_run("zzz", output_dir)


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
