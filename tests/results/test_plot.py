import math
import os
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from record_factory import make_record, write_run
from report_sample import ENDS, MODELS, write_events

from seqbench.errors import ConfigError
from seqbench.results.cells import aggregate
from seqbench.results.collect import collect
from seqbench.results.metric import ranked_by
from seqbench.results.plots.axes import is_logit, styles_of
from seqbench.results.plots.figures import learning_curves, pareto, scaling, write
from seqbench.results.plots.forecasts import forecasts
from seqbench.runs.forecasts import ForecastWindow, Lines, write_forecasts

HOSTILE = [
    "$\\evil{}$",
    "x" * 200,
    "y" * 3000,
    "_hidden",
    "a\x1b[2J\x00\n\u202e",
    "\ud800",
    "<b>&amp;</b>--><!--",
    "",
]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Return cells of four models on four tasks and two variants, with their folders."""
    folder = tmp_path_factory.mktemp("outputs")
    records = [
        make_record(task, model, seed, value=last * (1 + seed / 10), **changes)
        for task, (_, last) in ENDS.items()
        for model in MODELS
        for changes in [{}, {"model__kernel_size": 4}][: 1 + (task + model == "addingtcn")]
        for seed in range(3)
    ]
    for record in records:
        write_events(write_run(folder, record), record)
    return aggregate(records), collect([folder]).folders


@pytest.fixture(scope="module")
def figures(sample) -> dict[str, Figure]:
    cells, folders = sample
    return {
        "curves": learning_curves(cells, folders),
        "scaling": scaling(cells, "parameters"),
        "pareto": pareto(cells),
    }


def texts(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")


def legend(figure: Figure) -> dict[str, object]:
    (found,) = figure.legends
    names = [text.get_text() for text in found.get_texts()]
    return dict(zip(names, found.get_lines(), strict=True))


def lengths(model: str, values: dict[int, float], task: str = "copy", **changes):
    return [
        make_record(task, model, value=value, task__length=length, **changes)
        for length, value in values.items()
    ]


def drawn(figure: Figure) -> list[list[tuple[float, float]]]:
    """Return the points of each line without markers in the first panel."""
    lines = [line for line in figure.axes[0].get_lines() if line.get_marker() == "None"]
    return [list(zip(*line.get_data(), strict=True)) for line in lines]


# ---------------------------------------------------------------------------------------- files


def test_files_are_what_their_names_say(figures, tmp_path):
    for ending in ("png", "svg", "pdf"):
        write(figures["pareto"], tmp_path / f"plot.{ending}")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert ElementTree.parse(tmp_path / "plot.svg").getroot().tag.endswith("}svg")
    pdf = (tmp_path / "plot.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    for name in ("plot.gif", "plot", "plot.svg.gz"):
        with pytest.raises(ConfigError, match=r"\.png, \.svg or \.pdf"):
            write(figures["pareto"], tmp_path / name)


PROGRAM = """
import sys
from pathlib import Path
from seqbench.results.cells import aggregate
from seqbench.results.collect import collect
from seqbench.results.plots.figures import learning_curves, write
found = collect([Path("outputs")])
for name in sys.argv[1:]:
    write(learning_curves(aggregate(found.records), found.folders), Path(name))
assert "torch" not in sys.modules
"""


def test_the_same_records_give_the_same_bytes_whatever_matplotlib_is_set_to(tmp_path):
    for seed in (0, 1):
        folder = write_run(tmp_path / "outputs", make_record(model="$a^2$", seed=seed))
        events = [f'{{"step": {i}, "split": "valid", "mse": {0.1 / i + seed}}}' for i in (1, 2)]
        (folder / "events.jsonl").write_text("\n".join(events) + "\n")
    own = tmp_path / "settings" / "matplotlibrc"  # in the current folder all would read it
    own.parent.mkdir()
    own.write_text(
        "font.size: 30\naxes.facecolor: black\nsvg.hashsalt: mine\nsvg.fonttype: none\n"
        "text.parse_math: True\nfigure.figsize: 1, 1\nsavefig.dpi: 20\nlines.linewidth: 9\n"
        "axes.prop_cycle: cycler('color', ['red'])\nsavefig.bbox: tight\npdf.fonttype: 3\n"
    )
    endings = ("png", "svg", "pdf")
    for name, more in (("first", {}), ("own", {"MATPLOTLIBRC": str(own)})):
        files = [f"{name}.{ending}" for ending in endings]
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *files],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": str(len(name)), **more},
            check=True,
        )
    for ending in endings:
        first, again = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("first", "own"))
        assert first == again, ending


def test_a_missing_matplotlib_is_named_with_its_extra(tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from seqbench.cli.main import main\n"
        "sys.argv = ['seqbench', 'plot', '--output-dir', '.']\n"
        "main()\n"
    )
    write_run(tmp_path, make_record())
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: a plot needs matplotlib: pip install 'seqbench[plot]'\n"


# ----------------------------------------------------------------------------------- all figures


@pytest.mark.parametrize("kind", ["curves", "scaling", "pareto"])
def test_panels_and_legend_do_not_overlap_and_nothing_is_cut_off(figures, kind):
    figure = figures[kind]
    titles = [axes.get_title("left").split("\n")[0] for axes in figure.axes]
    assert titles == [
        "adding T=600",
        "char_ptb T=400",
        "copy T=1000",
        "smnist T=784",
    ]
    figure.draw_without_rendering()  # things get their places when they are drawn
    (found,) = figure.legends
    seen, beyond = set(figure.findobj(Text)), set()
    for axes in figure.axes:
        title = axes.get_title("left")
        (text,) = [text for text in axes.findobj(Text) if text.get_text() == title]
        assert not found.get_window_extent().overlaps(axes.get_window_extent())
        assert not found.get_window_extent().overlaps(text.get_window_extent())
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            inside = [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]
            beyond |= {tick.label1 for tick in ticks} - {*inside}
            boxes = [label.get_window_extent() for label in inside if label.get_text()]
            assert len(boxes) > 1
            for i, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[i + 1 :])
    width, height = figure.canvas.get_width_height()
    for text in seen - beyond:
        box = text.get_window_extent()
        if text.get_text():
            assert 0 <= box.x0 <= box.x1 <= width, text
            assert 0 <= box.y0 <= box.y1 <= height, text


def test_many_exponents_stand_below_the_panel_uncut():
    values = {length: 0.01 * length**1.25 for length in (100, 200, 400)}
    models = [*MODELS, "rnn", "tcn_wide", "lstm_deep"]
    figure = scaling(aggregate([record for m in models for record in lengths(m, values)]))
    for model in models:
        assert f"{model}\u00a01.25\u00a0±\u00a00.00" in texts(figure)
    (axes,), (found,) = figure.axes, figure.legends
    figure.draw_without_rendering()
    note = figure._supxlabel.get_window_extent()
    assert not note.overlaps(axes.get_tightbbox())
    assert not note.overlaps(found.get_window_extent())


def test_a_model_is_drawn_alike_in_all_panels(figures):
    handles = legend(figures["curves"])
    looks = {
        (line.get_color(), str(line._dash_pattern), line.get_marker()): name
        for name, line in handles.items()
    }
    assert len(looks) == len(handles), "no two of them look alike"
    models = [line for line in handles if line != "without memory"]
    seen = [
        looks[line.get_color(), str(line._dash_pattern), line.get_marker()]
        for axes in figures["curves"].axes
        for line in axes.get_lines()
        if line.get_marker() != "None"
    ]
    assert sorted(set(seen)) == sorted(models)
    assert seen.count("gru") == 4


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_whatever_is_in_it(name, tmp_path):
    records = [
        replace(record, task=name, model=name, protocol=name)
        for record in lengths("m", {10: 0.1, 100: 0.2, 1000: 0.5})
    ]
    figure = scaling(aggregate([*records, *lengths("tcn", {10: 0.1})]))
    for ending in ("png", "svg", "pdf") if "\x1b" in name else ("svg",):
        write(figure, tmp_path / f"plot.{ending}")
    ElementTree.parse(tmp_path / "plot.svg")
    harmless = "".join(c for c in name if c.isprintable())
    assert harmless[:25] in texts(figure)
    assert all(c.isprintable() or c == "\u00a0" for c in texts(figure))
    assert len(legend(figure)) >= 2
    assert max(figure.get_size_inches()) < 15


def test_more_panels_than_anybody_can_read_cost_a_line():
    records = lengths("tcn", dict.fromkeys(range(10, 50), 0.1))
    with pytest.raises(ConfigError, match="40 panels with 1 lines are too many: --where narrows"):
        pareto(aggregate(records))


# --------------------------------------------------------------------------------- each of them


def test_the_band_goes_from_the_lowest_seed_to_the_highest(tmp_path):
    records = [make_record(seed=seed) for seed in range(3)]
    folders = {}
    for record, value in zip(records, (0.5, 0.1, 0.2), strict=True):
        folders[record.run_id] = folder = write_run(tmp_path, record)
        lines = [f'{{"step": {i}, "split": "valid", "mse": {value * i}}}\n' for i in (1, 2)]
        (folder / "events.jsonl").write_text("".join(lines))
    (axes,) = learning_curves(aggregate(records), folders).axes
    (line,) = [line for line in axes.get_lines() if line.get_marker() != "None"]
    assert list(zip(*line.get_data(), strict=True)) == [(1, 0.2), (2, 0.4)]
    (band,) = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert corners == {(1.0, 0.1), (1.0, 0.5), (2.0, 0.2), (2.0, 1.0)}


def test_bounds_are_drawn_for_the_score_and_not_for_the_loss(sample):
    cells, folders = sample
    adding = [cell for cell in cells if cell.column.task == "adding"]
    figure = learning_curves(adding, folders, log=False)
    levels = {line.get_label(): line.get_ydata()[0] for line in figure.axes[0].get_lines()}
    assert levels["without memory"] == pytest.approx(1 / 6, rel=1e-3)
    assert levels["best possible"] == 0
    assert {"without memory", "best possible"} < set(legend(figure))
    assert "without memory" not in legend(learning_curves(adding, folders, "loss"))


def test_another_metric_is_held_against_a_predictor_without_memory_too(tmp_path):
    made = make_record("copy")
    made = replace(made, metrics={"test": {"recall_accuracy": 0.5, **made.metrics["test"]}})
    record = replace(made, notes={"baseline_recall_accuracy": 0.125})
    folder = write_run(tmp_path, record)
    event = '{"step": 1, "split": "valid", "recall_accuracy": 0.5}'
    (folder / "events.jsonl").write_text(event + "\n")
    cells, folders = aggregate([record]), {record.run_id: folder}
    (axes,) = learning_curves(cells, folders, "recall_accuracy").axes
    levels = {line.get_label(): line.get_ydata()[0] for line in axes.get_lines()}
    assert levels["without memory"] == 0.125
    assert "best possible" not in levels
    ranked = ranked_by([record, replace(made, run_id="0" * 12)], "recall_accuracy")
    assert [each.baseline for each in ranked] == [0.125, None]


def test_a_bound_that_a_logarithmic_axis_cannot_show_is_told(sample):
    cells, folders = sample
    figure = learning_curves(cells, folders)
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "log", "logit"]
    assert "best possible" not in legend(figure)
    assert "best possible: 0, which a logarithmic axis cannot show" in texts(figure)


@pytest.mark.parametrize(
    ("values", "logit"), [((0.1, 0.96), True), ((0.1, 0.9), False), ((0.98, 1), False)]
)
def test_accuracies_near_100_percent_need_a_logit_axis(values, logit):
    assert is_logit(values) is logit


def test_scaling_draws_a_power_law_through_the_means():
    values = {length: 0.01 * length**0.5 for length in (100, 200, 400)}
    figure = scaling(aggregate(lengths("tcn", values)))
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert "interval: tcn\u00a00.50\u00a0±\u00a00.00" in texts(figure)
    law = drawn(figure)[0]
    assert law == [(length, pytest.approx(value)) for length, value in values.items()]
    assert "power law" in texts(figure)


def test_a_law_is_of_the_distance_to_the_best_possible_score():
    values = {length: 2.4 + 0.1 * length**-0.5 for length in (100, 200, 400)}
    records = [replace(record, optimum=2.4) for record in lengths("tcn", values)]
    figure = scaling(aggregate(records))
    assert "interval: tcn\u00a0-0.50\u00a0±\u00a00.00" in texts(figure)
    law = drawn(figure)[0]
    assert [law[0], law[-1]] == [(at, pytest.approx(values[at])) for at in (100, 400)]
    assert "power law of the distance to the best possible" in texts(figure)


def test_a_forecast_too_large_to_draw_is_a_gap(tmp_path):
    record = make_record()
    folder = write_run(tmp_path, record)
    lines = Lines(past=[0.0, 1.0], truth=[1.5, None], forecast=[2.0, 1e308], naive=[1.0, -1e308])
    window = ForecastWindow("worst", "", 1.0, [0, 1, 2, 3], "last value", {"load": lines})
    write_forecasts(folder / "forecasts.json", [window])
    figure = forecasts(aggregate([record]), {record.run_id: folder})
    write(figure, tmp_path / "forecasts.png")
    values = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].get_lines()}
    assert values["forecast"] == [2.0, pytest.approx(math.nan, nan_ok=True)]


def test_a_line_for_each_value_of_a_setting():
    made = [
        make_record("adding", "tcn", seed, 0.1 / dim, model__dim=dim, task__length=length)
        for dim in (8, 16)
        for length in (100, 200)
        for seed in (0, 1)
    ]
    figure = scaling(aggregate(made), "task.length", by="model.dim")
    assert list(legend(figure)) == ["tcn (dim=8)", "tcn (dim=16)"]
    assert "without memory: 0.167, beyond the axis" in texts(figure)
    assert drawn(figure)[:2] == [
        [(100, pytest.approx(0.1 / dim)), (200, pytest.approx(0.1 / dim))] for dim in (8, 16)
    ]
    with pytest.raises(ConfigError, match=r"did you mean 'model\.dim'"):
        scaling(aggregate(made), "task.length", by="model.dam")


@pytest.mark.parametrize("values", [{100: 0.1, 400: 0.2}, {100: 0.1, 110: 0.2, 120: 0.3}])
def test_too_few_places_or_too_near_ones_are_joined_and_no_law(values):
    figure = scaling(aggregate(lengths("tcn", values)))
    assert drawn(figure)[0] == list(values.items())
    assert "exponent" not in texts(figure)
    assert "power law" not in texts(figure)


def test_a_score_of_zero_makes_the_axis_linear():
    (axes,) = scaling(aggregate(lengths("tcn", {10: 0.0, 100: 0.1, 1000: 0.2})), log=True).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")


def test_a_baseline_that_moves_with_the_length_is_drawn_so():
    records = [
        replace(record, baseline=20.8 / record.length)
        for record in lengths("tcn", {100: 0.01, 1000: 0.02})
    ]
    assert drawn(scaling(aggregate(records)))[-1] == [
        (100, pytest.approx(0.208)),
        (1000, pytest.approx(0.0208)),
    ]


def test_the_front_leaves_out_the_worse_and_the_diverged():
    costs = {"gru": (10, 0.3), "lstm": (20, 0.4), "tcn": (30, 0.1), "llama": (5, 0.01)}
    records = [
        replace(record, measured=record.measured | {"seconds": seconds})
        for model, (seconds, value) in costs.items()
        for record in [make_record(model=model, value=value)]
    ]
    records.append(make_record(model="llama", seed=1, status="diverged"))
    figure = pareto(aggregate(records))
    assert drawn(figure)[0] == [(10, 0.3), (30, 0.1)]
    hollow = [
        line.get_xdata()[0]
        for line in figure.axes[0].get_lines()
        if line.get_markerfacecolor() == "white"
    ]
    assert hollow == [5]
    assert "hollow: a seed diverged" in texts(figure)


def test_times_of_different_devices_are_told():
    records = [make_record(), make_record(model="gru")]
    assert "different devices" not in texts(pareto(aggregate(records)))
    records[1] = replace(records[1], measured=records[1].measured | {"device": "cuda"})
    assert "times are of different devices" in texts(pareto(aggregate(records)))
    assert "different devices" not in texts(pareto(aggregate(records), "parameters"))


def test_more_configs_of_a_model_than_markers_look_different():
    records = [
        make_record(model=model, model__dropout=i / 100)
        for model in ("tcn", "gru")
        for i in range(9)
    ]
    styles = styles_of(aggregate(records))
    assert len({(style.colour, style.marker) for style in styles.values()}) == len(styles) == 18
