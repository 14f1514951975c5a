import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_factory import make_config, make_record, write_run, write_unfinished

from seqbench.errors import ConfigError
from seqbench.results.cells import aggregate
from seqbench.results.collect import Collected, collect
from seqbench.results.sql import TABLES, Answer, query
from seqbench.results.tables.export import long_form

EVENTS = [
    {"step": 5, "split": "train", "loss": 0.5, "lr": 1e-3},
    {"step": 5, "split": "valid", "mse": 0.25},
    {"step": 10, "split": "valid", "mse": None},
]
RECORDS = [
    make_record(task, model, seed, value=0.25 * (seed + 1))
    for task in ("adding", "smnist")
    for model in ("tcn", "lstm")
    for seed in range(3)
]


def write_events(folder: Path, text: str) -> None:
    (folder / "events.jsonl").write_text(text)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    for record in RECORDS:
        run = write_run(folder, record)
        write_events(run, "".join(json.dumps(event) + "\n" for event in EVENTS))
    return folder


@pytest.fixture(scope="module")
def collected(runs) -> Collected:
    return collect([runs])


def ask(collected: Collected, sql: str) -> list[tuple]:
    return query(sql, collected).rows


def everything_below(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_a_run_is_a_row_with_what_its_record_says(collected):
    record = RECORDS[0]
    answer = query(f"select * from runs where run_id = '{record.run_id}'", collected)
    assert answer.columns == list(TABLES["runs"])
    (row,) = answer.rows
    score = {**vars(record.score), "score": 0.25}
    own = {"solved": False, "folder": str(collected.folders[record.run_id])}
    own |= {"started": "2026-11-20 10:00:00", "finished": "2026-11-20 10:00:30"}
    expected = record.measured | vars(record) | score | own
    assert dict(zip(answer.columns, row, strict=True)) == {n: expected[n] for n in TABLES["runs"]}


def test_events_are_in_long_form(collected):
    rows = ask(
        collected,
        "select step, split, metric, value from events "
        f"where run_id = '{RECORDS[0].run_id}' order by all",
    )
    assert rows == [
        (5, "train", "loss", 0.5),
        (5, "train", "lr", 0.001),
        (5, "valid", "mse", 0.25),
        (10, "valid", "mse", None),
    ]
    found = ask(collected, "select distinct task, model, seed from events order by all")
    assert found == sorted((r.task, r.model, r.seed) for r in RECORDS)


def test_cells_are_those_of_the_table(collected):
    answer = query("select * from cells", collected)
    lines = long_form(aggregate(collected.records))
    assert answer.columns == list(TABLES["cells"])
    assert answer.rows == [tuple(getattr(line, name) for name in TABLES["cells"]) for line in lines]
    assert ask(collected, "select n, mean from cells where task = 'adding'") == [(3, 0.5), (3, 0.5)]


def test_compressed_runs_are_in_no_cell(tmp_path):
    for changes in ({}, {"init_sha256": "0", "compress": {"quantize": "fp16"}}):
        write_run(tmp_path, make_record(**changes))
    found = collect([tmp_path])
    assert ask(found, "select count(*) from runs") == [(2,)]
    assert ask(found, "select variant, n from cells") == [("", 1)]


@pytest.mark.parametrize("table", TABLES)
def test_no_column_is_a_reserved_word_and_types_are_as_declared(collected, table):
    names = ", ".join(TABLES[table])
    described = ask(collected, f"describe select {names} from {table}")
    assert {row[0]: row[1] for row in described} == TABLES[table]
    assert ask(Collected(), f"select * from {table}") == []


def test_aggregates_joins_and_json(collected):
    assert ask(
        collected,
        "select task, model, avg(score), count(*) from runs group by all order by all",
    ) == [(task, model, 0.5, 3) for task in ("adding", "smnist") for model in ("lstm", "tcn")]
    assert ask(
        collected,
        "select distinct config.optimizer.lr, config->>'$.choices.model' from runs order by all",
    ) == [(0.004, "lstm"), (0.004, "tcn")]
    assert ask(
        collected,
        "select count(*) from runs join events using (run_id) where events.metric = 'mse'",
    ) == [(24,)]
    assert ask(collected, "pivot runs on model using avg(score) group by task order by task") == [
        ("adding", 0.5, 0.5),
        ("smnist", 0.5, 0.5),
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "select 1",
        "(SELECT 1);",
        "; select 1",
        "/* ü /* x */ */ select 1 -- pragma",
        "with x as (select 1) from x",
        "from runs limit 1",
        "values (1)",
        "table runs",
        "show tables",
        "describe runs",
        "desc runs",
        "summarize runs",
        "from (pivot runs on model using avg(score))",
        "with x as (pivot runs on task, model using avg(score)) from x",
        "unpivot runs on score, seconds",
    ],
)
def test_all_that_selects_is_answered(collected, sql):
    assert ask(collected, sql)


def test_times_are_utc_wherever_it_runs(collected, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Seoul")
    assert ask(collected, "select max(finished), max(finished) < now() + interval 1 day from runs")[
        0
    ][0].startswith("2026-11-20 10:02:30")
    assert ask(collected, "select now()::varchar like '%+00'") == [(True,)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1.5", 1.5),
        ("1000000000000000000000", 10**21),
        ("true", True),
        ("null", None),
        ("date '2026-11-20'", "2026-11-20"),
        ("date '99999-01-01'", "99999-01-01"),
        ("timestamptz '2026-11-20 10:00:00+09'", "2026-11-20 01:00:00+00"),
        ("interval 3 month", "3 months"),
        ("'{\"a\": [1, null]}'::json", {"a": [1, None]}),
        ("[1, 2]", [1, 2]),
        ("{'a': 1, 'b': {'c': 'x'}}", {"a": 1, "b": {"c": "x"}}),
        ("['nan'::double]", [None]),
        ("config->'budget'", "full"),
    ],
)
def test_values_are_those_of_json(collected, expression, expected):
    value = ask(collected, f"select {expression} from runs limit 1")[0][0]
    assert value == expected
    assert type(value) is type(expected)


def test_a_float_need_not_be_finite(collected):
    ((nan, inf),) = ask(collected, "select 'nan'::double, -'inf'::double")
    assert math.isnan(nan)
    assert inf == -math.inf


def test_columns_may_share_a_name_and_order_is_kept(collected):
    answer = query("select seed, seed from runs order by seed desc", collected)
    assert answer.columns == ["seed", "seed"]
    assert answer.rows == [(seed, seed) for seed in (2, 1, 0) for _ in range(4)]


def test_unfinished_runs_are_in_no_table(tmp_path):
    write_unfinished(tmp_path, RECORDS[0], '{"step": 1, "split": "valid", "mse": 1}\n')
    found = collect([tmp_path])
    assert found.unfinished
    assert ask(found, "select (select count(*) from runs), (select count(*) from events)") == [
        (0, 0)
    ]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select scor from runs", 'Candidate bindings: "score"'),
        ("select * from rums", 'Did you mean "runs"?'),
        ("selec 1", 'syntax error at or near "selec"'),
        ("select primary from runs", 'syntax error at or near "primary"'),
        ("select ? from runs", "parameter"),
        ("select 1/0 + 'x'::int", "'x'"),
        ("", "got nothing"),
        ("  ;;", "got nothing"),
        ("-- nothing", "got nothing"),
        ("select 1; select 2", "got SELECT and SELECT"),
        ("select repeat('x', 1000000000000)", "string"),
        ("\udcff", "syntax error"),
    ],
)
def test_a_mistake_costs_one_line(collected, sql, message):
    with pytest.raises(ConfigError) as caught:
        query(sql, collected)
    text = str(caught.value)
    assert text.startswith("SQL: ")
    assert message in text
    assert text.isprintable()
    assert "Error:" not in text


STATEMENTS = """
    copy runs to '{0}/out.csv'
    copy (select 1) to '{0}/out.parquet' (format parquet)
    copy runs from '{0}/in.csv'
    export database '{0}/out'
    import database '{0}/out'
    attach '{0}/out.db'
    attach ':memory:' as other
    detach memory
    install httpfs
    load httpfs
    load '{0}/in.so'
    force install httpfs
    update extensions
    pragma version
    pragma enable_profiling
    pragma database_list
    set threads = 1
    set global enable_external_access = true
    set enable_external_access = true
    set lock_configuration = false
    set variable x = 1
    reset lock_configuration
    use memory
    call pragma_version()
    call enable_logging()
    checkpoint
    vacuum
    analyze
    begin
    commit
    rollback
    create table other as select 1
    create temp table other as select 1
    create view other as select 1
    create macro other() as 1
    create secret (type s3, key_id 'x', secret 'y')
    create or replace table runs as select 1
    create schema other
    create sequence other
    create type other as enum ('x')
    insert into runs (run_id) values ('x')
    update runs set score = 0
    delete from runs
    truncate runs
    drop table runs
    alter table runs drop column score
    comment on table runs is 'x'
    merge into runs using (select 1) on true when matched then delete
    prepare p as select 1
    execute p
    deallocate p
    explain select 1
    explain analyze delete from runs
    select 1; drop table runs
    select 1; set enable_external_access = true; copy runs to '{0}/out.csv'
    commit; copy runs to '{0}/out.csv'
    create table other as pivot runs on model using avg(score)
    copy (pivot runs on model using avg(score)) to '{0}/out.csv'
    create type other as enum ('x'); select 1
    pivot runs on model using avg(score); create table other as select 1
    pivot runs on model using avg(score); select 1
    /* ü select */ pragma version
"""
# A SELECT in form, and something else at heart.
SELECTS = """
    select * from '{0}/in.csv'
    from '{0}/in.csv'
    from '{0}/in.json'
    from '{0}/in.parquet'
    from '{0}/in.db'
    from 'https://localhost/in.csv'
    from 's3://bucket/in.csv'
    from read_csv('{0}/in.csv')
    from read_csv_auto('{0}/in.csv')
    from read_json('{0}/in.json')
    from read_json_objects('{0}/in.json')
    from read_ndjson('{0}/in.json')
    from read_parquet('{0}/in.parquet')
    from read_text('{0}/in.csv')
    from read_text('/etc/hostname')
    from read_blob('{0}/in.csv')
    from read_duckdb('{0}/in.db')
    from sniff_csv('{0}/in.csv')
    from glob('{0}/*')
    from parquet_metadata('{0}/in.parquet')
    from query('copy runs to ''{0}/out.csv''')
    from query('from ''{0}/in.csv''')
    from query_table('{0}/in.csv')
    from json_execute_serialized_sql(json_serialize_sql('from read_text(''{0}/in.csv'')'))
    with x as (copy runs to '{0}/out.csv') select 1
    with x as (insert into runs (run_id) values ('x') returning *) from x
    with x as (update runs set score = 0 returning *) from x
    with x as (delete from runs returning *) from x
    from enable_logging('QueryLog', storage := 'file', storage_path := '{0}/out')
    from enable_logging(storage := 'file', storage_config := {{'path': '{0}/out'}})
    from enable_profiling(save_location := '{0}/out.json')
    select getenv('HOME')
    from collected
    from objects
    from connection
    from arrow_scan(1, 2, 3)
    from pandas_scan(1)
    from python_map_function((from runs))
    from postgres_scan('', '', '')
    from sqlite_scan('{0}/in.db', 'x')
    from st_read('{0}/in.csv')
    select * from duckdb_extension_repositories()
"""
HOSTILE = [
    (line.strip(), refusal)
    for lines, refusal in ((STATEMENTS, "only one SELECT is allowed"), (SELECTS, "SQL: "))
    for line in lines.strip().splitlines()
]


@pytest.fixture
def bait(tmp_path, monkeypatch) -> Path:
    """Provide a current folder with files that a query could read."""
    (tmp_path / "in.csv").write_text("secret\nbait\n")
    (tmp_path / "in.json").write_text('{"secret": "bait"}')
    (tmp_path / "in.parquet").write_bytes(b"PAR1bait")
    (tmp_path / "in.so").write_bytes(b"\x7fELF")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("hostile", "refusal"), HOSTILE)
def test_no_query_reads_or_writes_a_file_or_changes_a_setting(
    collected, runs, bait, hostile, refusal
):
    before = everything_below(bait), everything_below(runs)
    with pytest.raises(ConfigError) as caught:
        query(hostile.format(bait), collected)
    # Some versions look for the database to import while they read the statement, in vain.
    assert refusal in str(caught.value) or "import" in hostile
    assert "\n" not in str(caught.value)
    assert (everything_below(bait), everything_below(runs)) == before


def test_an_answer_too_large_for_memory_does_not_go_to_disk(collected, bait):
    rows = ask(
        collected,
        "select current_setting('temp_directory'), current_setting('enable_external_access'), "
        "current_setting('lock_configuration'), current_setting('autoload_known_extensions')",
    )
    assert rows == [("", False, True, False)]
    before = everything_below(bait)
    ask(collected, "select count(*) from (select range r from range(300000) order by hash(range))")
    assert everything_below(bait) == before


def test_a_variable_of_ours_is_no_table(collected):
    secrets = [("bait",)]
    with pytest.raises(ConfigError, match="does not exist"):
        query("from secrets", collected)
    assert secrets


@pytest.mark.parametrize(
    "name", ["'; drop table runs; --", '"', "\\", "\x1b[2J", "=1+1", "a\0b", "\ud800", "模型", "$1"]
)
def test_hostile_names_are_data(name):
    record = make_record(model=name, task="adding")
    found = Collected([record], {record.run_id: Path(name.replace("\0", ""))})
    ((model, config, cells),) = ask(
        found, "select model, config->>'$.choices.model', (select min(model) from cells) from runs"
    )
    assert model == config == name.replace("\ud800", "?")
    assert cells == model if name.isprintable() else cells.isprintable()
    with pytest.raises(ConfigError) as caught:
        query("select model::int from runs", found)
    assert str(caught.value).isprintable()


def test_what_was_measured_elsewhere_replaces_no_fact_and_need_not_fit():
    record = make_record()
    record.measured.update(
        run_id="x", score=7, folder="/", seconds="long", threads=10**30, device={"a": 1},
        started="yesterday", host=None, throughput=math.inf,
    )  # fmt: skip
    found = Collected([record], {record.run_id: Path("here")})
    assert ask(
        found,
        "select run_id, score, folder, seconds, threads, device, started, host, throughput "
        "from runs",
    ) == [(record.run_id, 1e-4, "here", None, None, '{"a":1}', None, None, None)]


def test_a_record_that_is_nested_too_deeply_is_left_out_and_the_others_stay(tmp_path):
    nested: dict = {}
    for _ in range(5000):
        nested = {"a": nested}
    bad = replace(make_record(), run_id="bad", config=nested)
    good = make_record()
    folders = {bad.run_id: tmp_path / "bad", good.run_id: tmp_path / "good"}
    answer = query("select run_id from runs, cells", Collected([bad, good], folders))
    assert answer.rows == [(good.run_id,)]
    assert answer.left_out == [f"{tmp_path / 'bad'}: nested too deeply"]


@pytest.mark.parametrize(
    ("log", "rows", "left_out"),
    [
        ('{"step": 1, "split": "valid", "mse": 1}\n{"step": 2, "spl', [(1, "valid", 1.0)], 0),
        ('{"step": 1, "split": "valid", "mse": NaN}\n', [(1, "valid", None)], 0),
        ('{"step": 1, "split": "valid", "mse": 1e999}\n', [], 0),
        ('{"step": 1, "split": "valid", "mse": "x"}\n{"mse": 3}\n', [(None, None, 3.0)], 0),
        ('{"step": "x", "split": [1], "mse": 2}\n', [(None, "[1]", 2.0)], 0),
        ('{"step": 1, "split": "valid", "mse": true}\n', [], 0),
        ('nonsense\n{"step": 1, "split": "valid", "mse": 1}\n', [], 1),
        ("", [], 0),
        (None, [], 0),
    ],
)
def test_logs_that_are_not_whole(tmp_path, log, rows, left_out):
    folder = write_run(tmp_path, make_record())
    if log is not None:
        write_events(folder, log)
    answer = query("select step, split, value from events", collect([tmp_path]))
    assert answer.rows == rows
    assert len(answer.left_out) == left_out
    assert ask(collect([tmp_path]), "select count(*) from runs") == [(1,)]


def test_logs_are_read_only_for_queries_that_name_them_and_never_from_a_pipe(tmp_path):
    folder = write_run(tmp_path, make_record())
    write_events(folder, "nonsense\n{}\n")
    found = collect([tmp_path])
    assert query("select * from runs", found).left_out == []
    assert len(query("select * from EVENTS", found).left_out) == 1
    (folder / "events.jsonl").unlink()
    os.mkfifo(folder / "events.jsonl")
    assert ask(found, "select count(*) from events") == [(0,)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30)
@given(
    st.dictionaries(st.sampled_from(sorted(TABLES["runs"])) | st.text(), json_values),
    st.dictionaries(st.text(), json_values, max_size=3),
    st.integers(),
)
def test_any_record_that_is_valid_is_a_row(measured, extra, seed):
    record = replace(
        make_record(), measured=measured, config=make_config("adding", "tcn", 0) | extra, seed=seed
    )
    answer = query(
        "select run_id, seed, score, config from runs",
        Collected([record], {record.run_id: Path("x")}),
    )
    assert isinstance(answer, Answer)
    ((run_id, found, score, config),) = answer.rows
    assert (run_id, score) == (record.run_id, 1e-4)
    assert found == (seed if -(2**63) <= seed < 2**63 else None)
    assert config.keys() >= {"choices", "model"} - extra.keys()


@settings(max_examples=60)
@given(st.text(max_size=40) | st.text(alphabet="select from runs*();'\"-,0x$?:[]{}\\", max_size=40))
def test_any_text_is_an_answer_or_one_line(text):
    try:
        assert isinstance(query(text, Collected()), Answer)
    except ConfigError as error:
        assert str(error).isprintable()  # noqa: PT017 both are right
