"""An exported file answers in onnxruntime as the run does, at every size, and says what it is."""

import csv
import json
from functools import cache

import numpy as np
import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry
from typer.testing import CliRunner

from seqbench.cli.main import app
from seqbench.config.compose import compose
from seqbench.errors import ConfigError, RunError
from seqbench.experiment import run
from seqbench.experiment.classifying import classify
from seqbench.experiment.forecasting import forecast
from seqbench.experiment.saved_run import SavedRun
from seqbench.runs.run import Run

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
from seqbench.export import exporting  # noqa: E402

SIZES = {
    "tcn": ("model.channels=[6,6]", "model.kernel_size=3"),
    "lstm": ("model.hidden_size=6", "model.num_layers=2", "model.tied=true"),
    "gru": ("model.hidden_size=6",),
    "rnn": ("model.hidden_size=6",),
    "llama": ("model.dim=8", "model.num_layers=1", "model.num_heads=4", "model.num_kv_heads=2"),
    "transformer_xl": ("model.dim=8", "model.num_layers=2", "model.num_heads=2"),
    "tcn_attention": ("model.channels=[8,8]", "model.kernel_size=3"),
    "nlinear": (),
    "dlinear": ("model.kernel_size=3",),
}
TOKENS = ("task=char_markov", "task.length=20", "task.context=0", "task.train_size=400")
ADDING = ("task=adding", "task.length=12", "task.train_size=40", "task.eval_size=10")
COLUMNS = ("task=forecast_file", "task.target=[load,heat]", "task.length=10", "task.horizon=4")
CLASSES = ("task=classify_file", "task.pool=mean", "task.channels=[b,a]", "task.missing=mask")
EVERYTHING = (*COLUMNS, "task.known=[free]", "task.missing=mask")


@pytest.fixture(scope="module", autouse=True)
def registry():
    """Read torch's table of ONNX operators once: it takes a second, in each export."""
    with pytest.MonkeyPatch.context() as patch:
        once = staticmethod(cache(ONNXRegistry.from_torchlib))
        patch.setattr(ONNXRegistry, "from_torchlib", once)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a table of two targets with missing values, and a column known ahead."""
    path, random = tmp_path_factory.mktemp("export"), np.random.RandomState(0)
    start = np.datetime64("2023-12-20T00:00")
    with (path / "load.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["time", "load", "heat", "free"])
        for i in range(200):
            load = "" if i % 11 == 3 else f"{1e5 + random.randn():.4f}"
            rows.writerow([start + np.timedelta64(3 * i, "h"), load, random.rand(), i // 8 % 2])
    with (path / "gestures.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "a", "b", "label"])
        for i in range(60):
            for value in 1000 + 50 * random.randn(random.randint(3, 12)) + i % 3 * 40:
                b = "" if random.rand() < 0.2 else f"{random.randn() / 1000:.6f}"
                rows.writerow([i, f"{value:.3f}", b, ("push", "pull", "wave")[i % 3]])
    return path


@pytest.fixture(scope="module")
def trained(folder):
    """Train a run for two steps, with weights that are large enough to tell answers apart."""

    def train(model, *task):
        words = ("trainer.batch_size=8", "threads=1", f"output_dir={folder}")
        if "task=forecast_file" in task:
            words = (*words, f"task.path={folder / 'load.csv'}")
        if "task=classify_file" in task:
            words = (*words, f"task.path={folder / 'gestures.csv'}")
        config = compose([f"model={model}", *SIZES[model], *task, *words, "trainer.steps=2"])
        run(config)
        saved = SavedRun(Run.of(config).folder)
        torch.manual_seed(0)
        for parameter in saved.model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.3)
        return saved

    return train


def opened(path):
    session = onnxruntime.InferenceSession(path)
    about = json.loads(session.get_modelmeta().custom_metadata_map["seqbench"])
    assert [port.name for port in session.get_inputs()] == [
        port[key]
        for group, key in (("inputs", "name"), ("state", "input"))
        for port in about[group]
    ]
    return session, about


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Return a run and its file, which is written once."""
    known = {}

    def of(*words):
        if words not in known:
            saved, path = trained(*words), tmp_path_factory.mktemp("files") / "model.onnx"
            done = exporting.export(saved, path)
            assert done.source == "the test split"
            known[words] = saved, path
        return known[words]

    return of


def inputs_of(saved, batch, time):
    if saved.spec.readout == "every":
        return torch.randint(saved.spec.input.vocab_size, (batch, time))
    return torch.randn(batch, time, saved.spec.input.dim)


@pytest.mark.parametrize(
    ("model", "task"),
    [
        ("llama", TOKENS),
        ("rnn", ADDING),
        ("transformer_xl", TOKENS),
        ("tcn_attention", ADDING),
        ("gru", (*TOKENS, "task.length=1")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_file_reads_any_number_of_sequences_and_steps(exported, model, task):
    saved, path = exported(model, *task)
    session, about = opened(path)
    assert session.get_inputs()[0].shape[:2] == ["batch", "time"]
    assert (about["model"], about["run"]) == (model, saved.run.run_id)
    for batch, time in ((1, 1), (2, 33), (5, 7)):
        x = inputs_of(saved, batch, time)
        (found,) = session.run(None, {about["inputs"][0]["name"]: x.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, saved.model(x)[0], atol=2e-5)


@pytest.mark.parametrize("model", ["lstm", "tcn"])
def test_chunks_with_a_state_answer_as_the_whole(trained, tmp_path, model):
    saved = trained(model, *TOKENS)
    exporting.export(saved, tmp_path / "model.onnx", stateful=True)
    session, about = opened(tmp_path / "model.onnx")
    x = inputs_of(saved, 3, 41)
    for chunks in ([1] * 41, [41], [2, 17, 1, 1, 20]):
        state = {
            part["input"]: np.zeros([3, *part["axes"][1:]], np.float32) for part in about["state"]
        }
        answers = []
        for part in x.split(chunks, 1):
            answer, *after = session.run(None, {"tokens": part.numpy(), **state})
            answers.append(answer)
            state = dict(zip(state, after, strict=True))
        with torch.no_grad():
            np.testing.assert_allclose(np.concatenate(answers, 1), saved.model(x)[0], atol=2e-5)


@pytest.mark.parametrize(
    ("model", "task"), [("gru", EVERYTHING), ("dlinear", (*COLUMNS, "task.calendar=false"))]
)
def test_forecasts_are_those_of_predict_in_the_units_of_the_file(
    trained, folder, tmp_path, model, task
):
    words = (*task, "task.horizon=4", "task.missing=mask")
    saved = trained(model, *dict.fromkeys(words))
    exporting.export(saved, tmp_path / "model.onnx")
    session, about = opened(tmp_path / "model.onnx")
    with (folder / "load.csv").open() as file:
        rows = list(csv.DictReader(file))
    *_, predicted = forecast(saved, str(folder / "load.csv"), rolling=True)

    def raw(names, shown):
        return np.array([[[float(row[name] or "nan") for name in names] for row in shown]])

    # Columns known ahead are given until the end of the file, others until the origin.
    ahead = about["preprocessing"]["horizon"] if about["preprocessing"]["known"] else 0
    end = len(rows) - ahead
    shown = rows[end - 10 : end]
    feeds = {
        "values": raw(about["inputs"][0]["columns"], shown),
        "ahead": raw(["free"], rows[end - 10 + ahead : end + ahead]),
        "time": np.array([[np.datetime64(row["time"], "s").astype(int) for row in shown]]),
    }
    (found,) = session.run(None, {port["name"]: feeds[port["name"]] for port in about["inputs"]})
    for i, target in enumerate(("load", "heat")):
        np.testing.assert_allclose(found[0, :, i], predicted[target][-4:], rtol=1e-6, atol=1e-5)
    assert (session.get_inputs()[0].shape[1] == "time") == (model == "gru")
    assert about["outputs"][0]["columns"] == ["load", "heat"]


def test_classes_are_those_of_predict_from_raw_values(trained, folder, tmp_path):
    saved, path = trained("tcn", *CLASSES), tmp_path / "model.onnx"
    done = exporting.export(saved, path)
    assert [port.text for port in done.ports] == [
        "values float64 (batch, time, 2)",
        "probabilities float32 (batch, 3)",
    ]
    session, about = opened(path)
    assert about["inputs"][0]["columns"] == ["b", "a"]
    assert "at its own length" in about["inputs"][0]["meaning"]
    assert about["outputs"][0]["columns"] == ["pull", "push", "wave"]
    assert "from the mean over the steps" in about["outputs"][0]["meaning"]
    sequences = {}
    with (folder / "gestures.csv").open() as file:
        for row in csv.DictReader(file):
            step = [float(row[name] or "nan") for name in about["inputs"][0]["columns"]]
            sequences.setdefault(row["id"], []).append(step)
    (predicted,) = classify(saved, str(folder / "gestures.csv"))
    assert len(set(predicted["class"])) > 1
    found = [session.run(None, {"values": [own]})[0][0] for own in sequences.values()]
    assert predicted["id"].tolist() == [*sequences]
    for i, name in enumerate(about["outputs"][0]["columns"]):
        np.testing.assert_allclose(
            np.array(found)[:, i], predicted[f"probability_{name}"], atol=1e-5
        )


def test_the_command_exports_a_run_whose_data_are_gone(trained, folder, tmp_path):
    words = (*COLUMNS, "task.missing=mask", "task.normalize=none", "task.calendar=false")
    run_id, path = trained("nlinear", *words).run.run_id, tmp_path / "m.onnx"
    words = ["export", run_id, "--output-dir", str(folder), "-o"]
    moved = (folder / "load.csv").rename(folder / "moved.csv")
    try:
        done = CliRunner().invoke(app, [*words, str(path)])
    finally:
        moved.rename(folder / "load.csv")
    assert done.exit_code == 0
    assert "values float64 (batch, 10, 3): load, heat, free\nforecast float64 (ba" in done.stderr
    assert "m.onnx: compared on random inputs, 3 x 10, 1 x 10 steps: largest diff" in done.stderr
    assert opened(path)[1]["preprocessing"]["time_step_us"] == 3 * 3600 * 10**6
    refused = CliRunner().invoke(app, [*words, str(tmp_path / "m.txt")])
    assert isinstance(refused.exception, ConfigError)
    assert "expected a name that ends with .onnx, got" in str(refused.exception)


def fails(*_):
    raise IndexError("two\nlines")


@pytest.mark.parametrize(
    ("forward", "content", "message"),
    [
        (
            None,
            None,
            r"answers to 3 x 12 steps of the test split differ from .* by 0\.01, expected",
        ),
        (None, b"other", "onnxruntime cannot run it: InvalidProtobuf: "),
        (fails, None, "the run's own model fails on 3 x 12 steps: IndexError: two lines$"),
    ],
    ids=["answers", "file", "model"],
)
def test_a_file_that_cannot_be_compared_is_not_written(
    trained, exported, tmp_path, monkeypatch, forward, content, message
):
    saved = trained("rnn", *ADDING)
    saved.model.output.bias.data += 0.01  # of the run, not of the file
    saved.model.forward = forward or saved.model.forward
    content = content or exported("rnn", *ADDING)[1].read_bytes()
    monkeypatch.setattr(exporting, "content_of", lambda *_, **__: content)
    (tmp_path / "model.onnx").write_text("before")
    with pytest.raises(RunError, match=f"^the file is not written: .*{message}"):
        exporting.export(saved, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "before"


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        ("llama", TOKENS, r"lstm, gru, rnn and tcn have and llama has not: seqbench export RUN"),
        ("gru", EVERYTHING, r"task\.normalize=window, which needs the whole look-back"),
        ("gru", CLASSES, r"task\.pool=mean, and the answer to a chunk would be from the mean over"),
    ],
)
def test_a_state_of_no_fixed_size_is_refused(trained, tmp_path, model, task, message):
    with pytest.raises(ConfigError, match=message):
        exporting.export(trained(model, *task), tmp_path / "model.onnx", stateful=True)
    assert not list(tmp_path.iterdir())


CUSTOM = """
import torch
from torch import nn

class Mean(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.linear = nn.Linear(spec.input.dim, spec.output_dim)

    def forward(self, x):
        return self.linear(x).mean(1) + torch.zeros(len(x), 1)

class Flat(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.linear = nn.Linear(spec.length * spec.input.dim, spec.output_dim)

    def forward(self, x):
        return self.linear(x.flatten(1))

class Branches(Mean):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)
"""


def test_a_custom_model_is_exported_if_torch_can_trace_it(tmp_path, monkeypatch, capfd):
    (tmp_path / "exported_custom.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("Mean", "Flat", "Branches"):
        words = ["trainer.batch_size=8", "threads=1", f"output_dir={tmp_path}", "trainer.steps=2"]
        config = compose([f"model=exported_custom.{name}", *ADDING, *words])
        run(config)
        saved = SavedRun(Run.of(config).folder, trust=["exported_custom"])
        if name != "Branches":
            done = exporting.export(saved, tmp_path / "model.onnx")
            assert [port.axes[0] for port in done.ports] == ["batch", "batch"]
            # A model of one length is traced again with it.
            time = saved.spec.length if name == "Flat" else "time"
            assert done.ports[0].axes[1] == time
            continue
        with pytest.raises(RunError, match="torch cannot export the model: "):
            exporting.export(saved, tmp_path / "none.onnx")
    assert not (tmp_path / "none.onnx").exists()
    assert "def forward" not in "".join(capfd.readouterr())
