import base64
import hashlib
import json
import os
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_record, write_run, write_unfinished
from report_sample import write_events, write_sample
from typer.testing import CliRunner

from seqbench.cli.report import report
from seqbench.errors import ConfigError
from seqbench.results.cells import aggregate
from seqbench.results.collect import collect, read_unfinished
from seqbench.results.looks import looks_of
from seqbench.results.report import content as content_module
from seqbench.results.report.content import build_content
from seqbench.results.report.page import render
from seqbench.results.summary import LOG_TAIL, log_end
from seqbench.results.tables.reproduction import build_reproduction
from seqbench.results.tables.table import FACTOR
from seqbench.results.targets import targets

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--<script>",
    "\u2028alert(1)//",
    "\ud800",
    "\x1b[2J\x00",
    "${alert(1)} %{x} $style",
    "__proto__",
    "a" * 100_000,
]


def content_of(folder: Path, **options):
    found = collect([folder])
    unfinished = [read_unfinished(path) for path in found.unfinished]
    return build_content(
        found.records, unfinished, found.folders, left_out=found.unreadable, **options
    )


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    write_sample(folder)
    return folder


@pytest.fixture(scope="module")
def content(outputs):
    return content_of(outputs)


# ------------------------------------------------------------------------------- what is on it


def test_everything_is_on_the_page(content):
    assert content["counts"] == {"completed": 67, "failed": 2, "unfinished": 2, "diverged": 1}
    assert content["paper"] == "tcn2018"
    names = [column["name"] for column in content["table"]["columns"] if not column["beside"]]
    assert names == ["adding", "char_ptb", "copy", "smnist"]
    assert [figure["task"] for figure in content["figures"]] == names
    labels = {row["label"] for row in content["table"]["rows"] if not row["bound"]}
    assert labels == {model["label"] for model in content["models"]}
    assert len(content["runs"]) == 72
    finished = [run["finished"] for run in content["runs"] if run["status"] != "unfinished"]
    assert finished == sorted(finished, reverse=True)
    json.dumps(content, allow_nan=False)


def test_the_factor_of_a_geometric_mean_is_no_plus_or_minus(tmp_path):
    for seed, value in enumerate([1e-5, 2e-5, 3e-5]):
        write_run(tmp_path, make_record(model="tcn", seed=seed, value=value))
        write_run(tmp_path, make_record(model="lstm", seed=seed, value=1000 * value))
    rows = content_of(tmp_path)["table"]["rows"]
    [tcn] = [row["entries"][0]["number"] for row in rows if row["label"] == "tcn"]
    assert tcn == f"1.82e-5 {FACTOR} 4.0"


def test_verdicts_are_on_the_metric_of_the_paper(tmp_path):
    for seed, bits in enumerate([1.34, 1.35, 1.36]):
        record = make_record("char_ptb", "tcn", seed, bits, parameters=3_000_000, protocol="paper")
        test = record.metrics["test"] | {"bpc_eos": 0.968 * bits}
        notes = record.notes | {"baseline_bpc_eos": 4.18}
        write_run(tmp_path, replace(record, metrics={"test": test}, notes=notes))
    [verdict] = content_of(tmp_path)["verdicts"]
    assert (verdict["theirs"], verdict["verdict"]) == ("1.31 bpc", "reproduced")
    assert verdict["ours"].startswith("1.307 ± ")


def test_compressed_runs_are_in_the_list_only(tmp_path):
    parent = make_record(protocol="paper")
    child = {"init_run": parent.run_id, "init_sha256": "0", "compress": {"quantize": "fp16"}}
    for record in (parent, make_record(protocol="paper", **child)):
        write_events(write_run(tmp_path, record), record)
    found = content_of(tmp_path)
    assert {run["label"] for run in found["runs"]} == {"tcn", "tcn (fp16)"}
    assert [row["label"] for row in found["table"]["rows"] if not row["bound"]] == ["tcn"]
    assert [row["label"] for row in found["verdicts"]] == ["tcn"]
    assert {line["label"] for line in found["figures"][0]["charts"][0]["lines"]} == {"tcn"}


def test_a_figure_draws_seeds_together_with_their_bounds(content):
    adding = content["figures"][0]
    assert (adding["title"], adding["optimum"], adding["direction"]) == ("adding T=200", 0, "min")
    assert adding["baseline"] == pytest.approx(1 / 6, rel=1e-3)
    first = adding["charts"][0]
    assert (first["name"], first["scored"], first["may_be_log"]) == ("valid MSE", True, True)
    lines = {line["label"]: line for line in first["lines"]}
    assert set(lines) == {
        "gru",
        "llama",
        "lstm",
        "tcn (kernel_size=4, lr=0.002)",
        "tcn (kernel_size=8, lr=0.004)",
    }
    for line in lines.values():
        assert len(line["runs"]) == line["n"] > 1
        together = zip(line["low"], line["median"], line["high"], strict=True)
        assert all(low <= middle <= high for low, middle, high in together)
        for index in line["runs"]:
            assert content["runs"][index]["model"] == line["label"].split()[0]
    smnist = content["figures"][3]
    chart = smnist["charts"][0]
    assert (chart["name"], chart["may_be_log"]) == ("valid accuracy %", False)
    assert max(line["median"][-1] for line in chart["lines"]) > 90
    assert smnist["baseline"] == 10


def test_a_run_says_how_it_differs_and_how_far_it_came(content):
    runs = content["runs"]
    tuned = next(run for run in runs if run["differences"])
    assert tuned["differences"] == [
        ["model.kernel_size", "8", "4"],
        ["optimizer.lr", "0.004", "0.002"],
    ]
    assert tuned["command"].endswith(" model.kernel_size=4 optimizer.lr=0.002")
    assert all(run["command"] for run in runs)
    assert all(run["log"] == "" for run in runs if run["status"] == "completed")
    failed = next(run for run in runs if run["status"] == "failed")
    assert failed["log"].endswith("is invalid for input of size 1228800")
    assert "Traceback (most recent call last):" in failed["log"]
    assert failed["error"].startswith("RuntimeError")
    unfinished = next(run for run in runs if run["status"] == "unfinished")
    assert (unfinished["task"], unfinished["model"]) == ("smnist", "lstm")
    assert {n for curve in unfinished["curves"] for n in curve["values"]} >= {"loss", "accuracy"}
    assert unfinished["sections"] == []
    done = next(run for run in runs if run["status"] == "completed")
    assert ["trainer.watch (default)", "valid"] in done["config"]
    figures = dict(row for _, rows in done["sections"] for row in rows)
    assert figures["time steps/s"] == "99000"
    assert "throughput" not in figures


def test_models_have_one_colour_and_every_line_its_own_pattern(content):
    styles = content["models"]
    looks = [(style["colour"], style["dash"]) for style in styles]
    assert len(set(looks)) == len(looks)
    colours = {(style["model"], style["colour"]) for style in styles}
    assert len(colours) == len({model for model, _ in colours}) == 4
    # The same in a report on other models.
    alone = looks_of(aggregate([make_record(model="tcn")]), ["tcn"])
    assert alone[0].colour == next(s["colour"] for s in styles if s["label"] == "tcn")


@given(st.lists(st.text(max_size=3), min_size=1, max_size=12))
def test_models_of_any_name_have_styles(names):
    looks = looks_of(aggregate([make_record(model=name) for name in names]), names)
    assert {look.label for look in looks} >= {
        "".join(c for c in name if c.isprintable()) for name in names
    }


# ------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ([5e-5, 6e-5, 6.2e-5], {}),
        ([1e-5, 1.1e-5, 1.2e-5], {}),
        ([5.86e-5, 5.86e-5, 5.86e-5], {}),
        ([1e-5, 2e-5, 0.16], {}),
        ([1e-5], {}),
        ([5e-5, 6e-5, 6.2e-5], {"budget": "quick"}),
        ([None], {"status": "diverged"}),
    ],
)
def test_the_page_and_a_reproduction_conclude_the_same(tmp_path, values, changes):
    changes = {"protocol": "paper"} | changes
    records = [make_record(seed=i, value=v, **changes) for i, v in enumerate(values)]
    for record in records:
        write_run(tmp_path, record)
    content = content_of(tmp_path)
    [row] = content["verdicts"]
    [target] = targets("tcn2018", ["tcn"], "task=adding")
    table = build_reproduction("tcn2018", {target: records}, 3)
    places = [header.task for header in table.columns]
    assert row["verdict"] == table.rows[0].entries[places.index("verdict")].value
    assert set(content["verdict_notes"]) == {n for n in table.notes if n.startswith("reproduced:")}
    assert not row["reason"] or f"¹ {row['reason']}" in table.notes


def test_another_paper_may_be_asked_for_and_one_is_not_invented(tmp_path):
    write_run(tmp_path, make_record("adding", status="failed", value=None))
    with pytest.raises(ConfigError, match="no paper named 'tcn2019'"):
        content_of(tmp_path, paper="tcn2019")
    assert content_of(tmp_path)["paper"] == "tcn2018"
    other = tmp_path / "other"
    write_run(other, make_record("of_my_own"))
    assert content_of(other)["paper"] is None
    assert content_of(other)["verdicts"] == []


# --------------------------------------------------------------------------- the file and its size


class Outline(HTMLParser):
    """The tags of a page, and what is in its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.policy, self.in_script = [], [], "", False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        found = dict(attributes)
        assert not {"src", "href", "srcset"} & found.keys()
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]
        if tag == "script":
            self.scripts.append("")
            self.in_script = True

    def handle_data(self, data):
        if self.in_script:
            self.scripts[-1] += data

    def handle_endtag(self, tag):
        self.in_script = False


def test_two_hundred_runs_stay_below_eight_megabytes(content):
    page = render(content)
    plotly = len(render({"runs": []}))
    assert len(page.encode()) < 8e6
    assert len(page) - plotly < 2e6


def test_long_logs_make_no_larger_page(tmp_path):
    def size(length):
        folder = tmp_path / str(length)
        for seed in range(3):
            path = write_run(folder, make_record(seed=seed))
            lines = [
                {"step": i, "split": "train", "loss": i / 7, "lr": i / 3} for i in range(length)
            ]
            (path / "events.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return len(json.dumps(content_of(folder)))

    assert size(20_000) < 1.2 * size(2_000)


def test_the_more_runs_the_fewer_points(content, outputs, monkeypatch):
    def points(found):
        return sum(
            len(v) for run in found["runs"] for c in run["curves"] for v in c["values"].values()
        )

    assert points(content) <= content_module.MOST_POINTS / 2
    monkeypatch.setattr(content_module, "MOST_POINTS", 20_000)
    assert points(content_of(outputs)) < points(content) / 1.5


def test_the_policy_lets_these_scripts_run_and_nothing_else(content):
    outline = Outline(render(content))
    data, *scripts = outline.scripts
    assert json.loads(data) == json.loads(json.dumps(content))
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert outline.policy == (
        f"default-src 'none'; script-src 'sha256-{digests[0]}' 'sha256-{digests[1]}'; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def test_page_and_script_ask_nothing_of_the_network_and_make_no_markup():
    folder = Path(content_module.__file__).parent
    for name in ("page.html", "page.css", "page.js"):
        text = (folder / name).read_text(encoding="utf-8")
        text = text.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp|WebSocket", text)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)


@given(st.recursive(st.text() | st.floats(allow_nan=False, allow_infinity=False), st.lists))
def test_any_text_is_data(value):
    outline = Outline(render_without_plotly({"value": value}))
    assert json.loads(outline.scripts[0]) == {"value": value}
    assert outline.tags == Outline(render_without_plotly({})).tags


def render_without_plotly(content):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plotly.offline.get_plotlyjs", lambda: "")
        return render(content)


def test_a_missing_plotly_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'seqbench[report]'")):
        render({})


# ------------------------------------------------------------------------- what strangers may send


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_text(tmp_path, name):
    record = make_record(task=name[:50], model=name, seed=1)
    record.config.update({name: {name: name}})
    record.notes.update({name: name})
    record.measured.update({name: name, "finished": name, "seconds": name})
    folder = tmp_path / "runs" / "a" / "b" / "c"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record.to_json()))
    (folder / "events.jsonl").write_text(
        json.dumps({"step": 1, "split": name, name: 0.5, "loss": 1}) + "\n"
    )
    (folder / "log.txt").write_text(name, errors="replace")
    page = render_without_plotly(content_of(tmp_path))
    outline = Outline(page)
    assert outline.tags == Outline(render_without_plotly({})).tags
    assert len(page) < 200_000
    data = json.loads(outline.scripts[0])
    assert len(data["runs"]) == 1
    assert not any(ord(c) < 32 for c in data["runs"][0]["model"])


def test_a_log_that_is_a_link_or_a_pipe_is_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("a password")
    linked, piped = (
        write_run(tmp_path / "out", make_record(seed=i, status="failed")) for i in (0, 1)
    )
    (linked / "log.txt").symlink_to(secret)
    os.mkfifo(piped / "log.txt")
    os.mkfifo(piped / "events.jsonl")
    assert [run["log"] for run in content_of(tmp_path / "out")["runs"]] == ["", ""]


def test_of_a_long_log_the_end_is_kept_in_whole_lines(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("".join(f"line {i} \x1b[31m\n" for i in range(100_000)))
    lines = log_end(path).split("\n")
    assert lines[-1] == "line 99999 [31m"
    assert all(re.fullmatch(r"line \d+ \[31m", line) for line in lines)
    assert LOG_TAIL / 2 < len("\n".join(lines)) <= LOG_TAIL


@pytest.mark.slow
def test_a_run_with_a_thousand_metrics_and_settings_is_cut(tmp_path):
    record = make_record()
    record.config["model"].update({f"option_{i}": "x" * 10_000 for i in range(1000)})
    folder = write_run(tmp_path, record)
    event = {"step": 1, "split": "train"} | {f"metric_{i}": i for i in range(1000)}
    (folder / "events.jsonl").write_text("\n".join([json.dumps(event)] * 50))
    found = content_of(tmp_path)
    assert sum(len(curve["values"]) for curve in found["runs"][0]["curves"]) == 24
    assert found["runs"][0]["config"][-1] == ["...", "824 more"]
    assert len(json.dumps(found)) < 300_000


def test_damaged_files_leave_the_others(tmp_path):
    write_run(tmp_path, make_record(seed=0))
    damaged = write_run(tmp_path, make_record(seed=1))
    (damaged / "record.json").write_text("{")
    write_unfinished(tmp_path, make_record(seed=2), '{"step": 1, "split": "train", "loss"')
    odd = write_unfinished(tmp_path, make_record(seed=3), "")
    (odd / "config.yaml").write_text("choices: [1]\nmodel: 5\n")
    found = content_of(tmp_path)
    assert found["counts"] == {"completed": 1, "unfinished": 2}
    assert len(found["left_out"]) == 1


# ------------------------------------------------------------------------------------- the command


def invoke(*arguments):
    app = typer.Typer()
    app.command()(report)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_one_file_and_replaces_it_only_if_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "outputs", make_record())
    result = invoke()
    size = len(Path("report.html").read_bytes()) / 1e6
    assert result.stdout == f"report.html: 1 run, {size:.1f} MB\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs", "report.html"]
    Path("report.html").write_text("mine")
    with pytest.raises(ConfigError, match=r"report\.html exists: -o report\.html overwrites it"):
        raise invoke().exception
    assert Path("report.html").read_text() == "mine"
    assert invoke("-o", "report.html").exit_code == 0
    assert len(Path("report.html").read_text(encoding="utf-8")) > 1e6


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-o", "outputs/record.json"], "a report is an HTML file"),
        (["-o", "/"], "a report is an HTML file: -o /report.html"),
        (["-o", "nowhere/report.html"], "there is no folder 'nowhere': create it"),
        (["nowhere"], "there is no folder 'nowhere'"),
        (["--where", "seed=9"], "no runs in outputs: none matches"),
        (["--output-dir", "nowhere"], "no runs in nowhere: "),
        (["--paper", "tcn2019"], "no paper named"),
    ],
)
def test_a_mistake_costs_a_line(tmp_path, monkeypatch, words, reason):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "outputs", make_record())
    with pytest.raises(ConfigError, match=reason):
        raise invoke(*words).exception
    assert not Path("report.html").exists()


def test_a_filter_and_a_folder_choose(tmp_path):
    for seed in range(3):
        write_run(tmp_path, make_record(seed=seed))
    write_unfinished(tmp_path, make_record(seed=3), "")
    file = tmp_path / "a.html"
    assert invoke(tmp_path, "--where", "seed>0", "-o", file).stdout.startswith(f"{file}: 3 runs")
