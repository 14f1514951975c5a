import json
import math
from dataclasses import dataclass
from unittest.mock import patch

import pytest
import torch
from torch import nn

from seqbench.config.build import build
from seqbench.config.compose import compose
from seqbench.errors import ConfigError, Diverged, Interrupted
from seqbench.experiment.build import build_model, build_task
from seqbench.models.sequence_model import SequenceModel
from seqbench.runs.events import EventLog
from seqbench.runs.observer import Observer
from seqbench.spec import Features, SequenceSpec, Values
from seqbench.tasks.char_markov import CharMarkov
from seqbench.tasks.task import Batch, Primary, Task
from seqbench.training import checkpoint
from seqbench.training.schedules import Schedule
from seqbench.training.state import load_weights, weights
from seqbench.training.trainer import Trainer
from seqbench.training.training import Training

ADDING = [
    "task=adding",
    "task.length=12",
    "task.train_size=32",
    "task.eval_size=300",
    "model=tcn",
    "model.channels=[5,5]",
    "model.kernel_size=3",
    "recipe=none",
    "optimizer=sgd",
    "trainer.steps=8",
    "trainer.batch_size=8",
    "trainer.eval_every=4",
    "trainer.log_every=4",
]
MARKOV = [
    *["task=char_markov", "task.train_size=300", "task.eval_size=150"],
    *["task.length=16", "task.context=4"],
    *["model=lstm", "model.hidden_size=6"],
    *["recipe=none", "trainer.steps=8", "trainer.batch_size=4"],
]


class Fit:
    """A training of real parts, and what it left behind."""

    def __init__(self, folder, *overrides, schedule=None, base=ADDING):
        config = compose([*base, *overrides])
        self.folder = folder
        self.trainer = build("trainer", config)
        self.task = build_task(config, self.trainer)
        self.model = build_model(config, self.task.spec)
        self.optimizer = build("optimizer", config, self.model.parameters())
        schedule = schedule or build("schedule", config)
        self.state = self.trainer.begin(self.model, self.optimizer, schedule)

    def run(self, interrupted=lambda: False):
        events = EventLog(self.folder / "events.jsonl", 0)
        try:
            training = Training(self.state, self.task, events, self.folder, Observer())
            self.trainer.fit(training, interrupted)
        finally:
            events.close()
        return self

    def events(self, split):
        lines = (self.folder / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["split"] == split]

    def checkpoint(self, name):
        return checkpoint.load(self.folder / name)


def gradients(overrides, *, fresh):
    """Return gradients, loss and carried state of a batch."""
    config = compose(overrides)
    trainer = build("trainer", config)
    task = build_task(config, trainer)
    model = build_model(config, task.spec)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = None
    if not fresh:
        _, _, state = trainer.backward(model, task, task.train_batch(0), None, scaler)
        model.zero_grad()
    batch = task.train_batch(0 if fresh else 1)
    assert batch.fresh == fresh
    loss, _, state = trainer.backward(model, task, batch, state, scaler)
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"loss": loss, **grads}, state


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize(("overrides", "fresh"), [(ADDING, True), (MARKOV, True), (MARKOV, False)])
def test_micro_batches_give_the_gradients_of_the_whole_batch(overrides, fresh, accumulate):
    # The first segment of a text scores more positions in its first row than in the others.
    whole, state = gradients(overrides, fresh=fresh)
    parts, joined = gradients([*overrides, f"trainer.accumulate={accumulate}"], fresh=fresh)
    for name, expected in whole.items():
        torch.testing.assert_close(parts[name], expected, rtol=1e-5, atol=1e-7)
    if state is not None:
        torch.testing.assert_close(joined, state)


@dataclass(frozen=True)
class WeightedBatch(Batch):
    """A batch of a user's task, with a field of its own."""

    weight: torch.Tensor | None = None


class MaskedTask(CharMarkov):
    """Scores the first rows of a batch only; says so in `scored`, or hides it in the loss."""

    hides_mask = False

    def train_batch(self, step):
        batch = super().train_batch(step)
        scored = torch.zeros_like(batch.inputs, dtype=torch.bool)
        scored[: len(scored) // 4, 3:] = True
        weight = scored.float()
        scored = None if self.hides_mask else scored
        return WeightedBatch(batch.inputs, batch.targets, scored, batch.fresh, weight=weight)

    def loss(self, outputs, batch):
        mask = batch.weight.bool() if self.hides_mask else batch.scored
        return nn.functional.cross_entropy(outputs[mask], batch.targets[mask])


@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_micro_batch_without_scored_positions_adds_nothing(accumulate):
    with patch("seqbench.tasks.char_markov.CharMarkov", MaskedTask):
        whole, _ = gradients(MARKOV, fresh=True)
        parts, _ = gradients([*MARKOV, f"trainer.accumulate={accumulate}"], fresh=True)
    for name, expected in whole.items():
        assert expected.isfinite().all()
        torch.testing.assert_close(parts[name], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("accumulate", [2, 3])
def test_a_task_whose_loss_hides_its_mask_is_refused_in_micro_batches(tmp_path, accumulate):
    with patch("seqbench.tasks.char_markov.CharMarkov", MaskedTask):
        words = ["trainer.batch_size=12", f"trainer.accumulate={accumulate}"]
        fit = Fit(tmp_path, *words, base=MARKOV)
        with (
            patch.object(MaskedTask, "hides_mask", True),
            pytest.raises(ConfigError, match=r"trainer.accumulate=[23] would change the loss"),
        ):
            fit.run()


def test_the_gradient_is_clipped_after_backward(tmp_path):
    one_step = ["trainer.steps=1", "optimizer.lr=0.5"]
    before = {k: v.clone() for k, v in weights(Fit(tmp_path, *one_step).model).items()}

    def moved(fit):
        changes = [(v - before[k]).flatten() for k, v in weights(fit.model).items()]
        return torch.cat(changes).norm().item()

    free = Fit(tmp_path, *one_step).run()
    norm = moved(free) / 0.5
    assert "grad_norm" not in free.events("train")[0]

    tight = Fit(tmp_path, *one_step, f"trainer.clip={norm / 10}").run()
    assert moved(tight) == pytest.approx(0.5 * norm / 10, rel=1e-3)
    assert tight.events("train")[0]["grad_norm"] == pytest.approx(norm, rel=1e-3)

    loose = Fit(tmp_path, *one_step, f"trainer.clip={norm * 10}").run()
    assert moved(loose) == pytest.approx(0.5 * norm, rel=1e-3)


def test_the_gradient_is_of_its_own_step_only(tmp_path):
    """With SGD and no momentum, a second step equals a first step from where the first ended."""
    two = Fit(tmp_path, "trainer.steps=2").run()
    again = Fit(tmp_path, "trainer.steps=1").run()
    trainer, task, model = again.trainer, again.task, again.model
    model.zero_grad()
    trainer.backward(model, task, task.train_batch(1), None, torch.amp.GradScaler(enabled=False))
    again.optimizer.step()
    for name, weight in weights(model).items():
        assert torch.equal(weights(two.model)[name], weight)


class Factor(Schedule):
    """A schedule from a list."""

    def __init__(self, factors):
        super().__init__(0)
        self.factors = factors

    def factor(self, step, total):
        return self.factors[step]


def test_the_schedule_scales_the_rate_of_the_optimizer(tmp_path):
    fit = Fit(
        tmp_path, "optimizer.lr=0.5", "trainer.log_every=1", schedule=Factor([1, 0, *[0.1] * 6])
    )
    fit.run()
    rates = [event["lr"] for event in fit.events("train")]
    assert rates == pytest.approx([0.5, 0, *[0.05] * 6])


@pytest.mark.parametrize("every", [1, 3, 4])
def test_divergence_keeps_what_was_good(every, tmp_path):
    spike = Factor([0.1] * 5 + [1e20] * 3)
    fit = Fit(tmp_path, f"trainer.checkpoint_every={every}", schedule=spike)
    with pytest.raises(Diverged, match=r"diverged: .* is (inf|nan) at step \d; a lower optimizer"):
        fit.run()
    best, facts = fit.checkpoint(checkpoint.BEST)
    assert facts["step"] == 4
    last, _ = fit.checkpoint(checkpoint.LAST)
    for tensor in [*best.values(), *last.values()]:
        assert torch.isfinite(tensor.float()).all()
    load_weights(fit.model, best)
    assert fit.trainer.evaluate(fit.model, fit.task, "valid") == facts["metrics"]


class Stub(Task):
    """Answers as told: `valid` is the validation score of each evaluation, in turn."""

    spec = SequenceSpec(Features(1), Values(1), "last", 1)
    primary = Primary("score", "max", solved=3.0)
    steps_per_epoch = 5

    def __init__(self, valid=(), loss=torch.mean):
        super().__init__(batch_size=1, seed=0, data_dir=None)
        self.valid = iter(valid)
        self.loss_of = loss

    def to(self, device): ...

    def train_batch(self, step):
        return Batch(torch.ones(1, 1, 1), torch.ones(1, 1))

    def eval_batches(self, split):
        yield self.train_batch(0)

    def loss(self, outputs, batch):
        return self.loss_of(outputs)

    def metrics(self, outputs, batch):
        return {"score": (torch.tensor(next(self.valid)), 1)}


class Constant(SequenceModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x, state=None, context=0):
        return self.weight.expand(len(x), 1), None


def stub_fit(folder, task, *overrides, interrupted=lambda: False):
    """Train a model whose weight falls by one at each step; the state it ends in."""
    steps = [] if any("epochs" in override for override in overrides) else ["trainer.steps=8"]
    trainer = build("trainer", compose(["recipe=none", "trainer.eval_every=2", *steps, *overrides]))
    model = Constant()
    state = trainer.begin(model, torch.optim.SGD(model.parameters(), lr=1.0), Schedule(0))
    events = EventLog(folder / "events.jsonl", 0)
    try:
        trainer.fit(Training(state, task, events, folder, Observer()), interrupted)
    finally:
        events.close()
    return state


def test_the_best_weights_are_those_that_validation_chose(tmp_path):
    state = stub_fit(tmp_path, Stub([1.0, 2.5, 2.5, 0.5]))
    tensors, facts = checkpoint.load(tmp_path / checkpoint.BEST)
    assert (facts["step"], facts["metrics"]) == (4, {"score": 2.5})  # the first of two equals
    assert SequenceSpec.from_json(facts["spec"]) == Stub.spec
    assert tensors["model.weight"].item() == 1 - 4
    assert state.model.weight.item() == 1 - 8
    assert (state.progress.best, state.progress.best_step) == (2.5, 4)


@pytest.mark.parametrize(("stops", "steps"), [("true", 4), ("false", 8)])
def test_stops_when_solved_if_asked_to(tmp_path, stops, steps):
    task = Stub([2.0, 3.0, 3.0, 3.0])
    state = stub_fit(tmp_path, task, f"trainer.stop_when_solved={stops}")
    assert state.progress.step == steps
    assert state.progress.solved


def test_patience_ends_the_training_after_evaluations_without_a_better_score(tmp_path):
    scores = [1.0, 0.5, 2.0, 2.0, 1.0, 3.0, 4.0, 5.0]
    words = ["trainer.steps=16", "trainer.patience=2"]
    assert stub_fit(tmp_path, Stub(scores), *words).progress.step == 10
    assert checkpoint.load(tmp_path / checkpoint.BEST)[1]["step"] == 6


def test_a_loss_that_is_no_number_is_divergence(tmp_path):
    task = Stub(loss=lambda outputs: outputs.mean() * math.nan)
    with pytest.raises(Diverged, match="loss is nan at step 2"):
        stub_fit(tmp_path, task, "trainer.log_every=50")
    assert not (tmp_path / checkpoint.LAST).exists()


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_divergence(tmp_path, score):
    with pytest.raises(Diverged, match=f"valid score is {score} at step 4"):
        stub_fit(tmp_path, Stub([1.0, score]))
    assert checkpoint.load(tmp_path / checkpoint.BEST)[1]["step"] == 2
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(lines[-1]) == {"step": 4, "split": "valid", "score": None}


def test_a_gradient_that_is_no_number_is_divergence(tmp_path):
    task = Stub(loss=lambda outputs: (outputs - outputs.detach()).sqrt().mean())
    with pytest.raises(Diverged, match="grad_norm is inf at step 1"):
        stub_fit(tmp_path, task, "trainer.clip=1", "trainer.log_every=1")


def test_epochs_are_turned_into_steps(tmp_path):
    assert stub_fit(tmp_path, Stub([0.0] * 9), "trainer.epochs=1.6").progress.step == 8
    assert stub_fit(tmp_path, Stub([0.0] * 9), "trainer.epochs=0.01").progress.step == 1


def test_twenty_evaluations_in_a_run_unless_told_otherwise(tmp_path):
    stub_fit(tmp_path, Stub([0.0] * 20), "trainer.steps=40", "trainer.eval_every=null")
    lines = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    steps = [event["step"] for event in lines if event["split"] == "valid"]
    assert steps == list(range(2, 41, 2))


def test_an_evaluation_after_each_pass(tmp_path):
    task = Stub([0.0] * 20)
    words = ["trainer.steps=40", "trainer.eval_every=epoch"]
    stub_fit(tmp_path, task, *words)
    lines = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    steps = [event["step"] for event in lines if event["split"] == "valid"]
    assert steps == list(range(task.steps_per_epoch, 41, task.steps_per_epoch))


def test_an_interruption_leaves_a_checkpoint_at_its_step(tmp_path):
    asked = iter([False, False, True])
    with pytest.raises(Interrupted, match="interrupted at step 3 of 8") as caught:
        stub_fit(tmp_path, Stub([1.0] * 9), interrupted=lambda: next(asked))
    assert caught.value.exit_code == 130
    assert checkpoint.load(tmp_path / checkpoint.LAST)[1]["progress"]["step"] == 3


def test_an_interruption_at_the_last_step_comes_too_late(tmp_path):
    state = stub_fit(tmp_path, Stub([1.0]), "trainer.steps=1", interrupted=lambda: True)
    assert state.progress.step == 1


def test_the_loss_is_read_only_at_steps_that_log(tmp_path):
    """Reading a tensor's value waits for the device."""
    fit = Fit(tmp_path, "trainer.log_every=3", "trainer.clip=1.0")
    item, batch = torch.Tensor.item, fit.task.train_batch
    step, read = 0, set()

    def counting_batch(number):
        nonlocal step
        step = number + 1
        return batch(number)

    def counting_item(tensor):
        read.add(step)
        return item(tensor)

    fit.task.train_batch = counting_batch
    with patch.object(torch.Tensor, "item", counting_item):
        fit.run()
    assert read == {3, 4, 6, 8}


class Recording(SequenceModel):
    """Notes whether it was asked in training mode."""

    def __init__(self, model):
        super().__init__()
        self.model, self.modes = model, []

    def forward(self, x, state=None, context=0):
        self.modes.append(self.training)
        return self.model(x)


def test_evaluation_is_the_mean_over_all_examples_without_dropout(tmp_path):
    fit = Fit(tmp_path, "model.dropout=0.5")
    model = Recording(fit.model).train()
    scored = fit.trainer.evaluate(model, fit.task, "test")
    # 300 examples are a batch of 256 and one of 44.
    assert model.modes == [False, False]
    assert model.training
    x, y = fit.task.splits["test"]
    expected = (fit.model.eval()(x)[0] - y).square().mean().item()
    assert scored["mse"] == pytest.approx(expected, rel=1e-5)


def test_training_goes_on_in_training_mode_after_an_evaluation(tmp_path):
    fit = Fit(tmp_path)
    modes = []
    fit.model.register_forward_pre_hook(lambda model, _: modes.append(model.training))
    fit.run()
    steps, evaluation = [True] * 4, [False] * 2
    assert modes == [*steps, *evaluation, *steps, *evaluation]


# In fp16 the first steps may be skipped, until the loss scale fits.
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "apart"), [("bf16", 0.02), ("fp16", 0.2)])
def test_mixed_precision_trains_weights_kept_in_fp32(tmp_path, precision, apart):
    full, mixed = (
        Fit(tmp_path, "trainer.steps=4", f"trainer.precision={p}").run()
        for p in ("fp32", precision)
    )
    same = []
    for name, weight in weights(full.model).items():
        other = weights(mixed.model)[name]
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, weight, rtol=0, atol=apart)
        same.append(torch.equal(other, weight))
    assert not all(same)


def test_tokens_count_all_time_steps_read(tmp_path):
    assert Fit(tmp_path).run().state.progress.tokens == 8 * 8 * 12


GOOD = {
    "steps": 1,
    "epochs": None,
    "batch_size": 8,
    "accumulate": 1,
    "clip": None,
    "precision": "fp32",
    "eval_every": None,
    "checkpoint_every": None,
    "log_every": 1,
    "stop_when_solved": False,
    "deterministic": False,
    "compile": False,
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": 1.0}, r"give one of trainer\.steps and trainer\.epochs"),
        ({"steps": None}, r"give one of trainer\.steps and trainer\.epochs"),
        ({"steps": -1}, r"trainer\.steps must be positive, not -1"),
        ({"steps": None, "epochs": -0.5}, r"trainer\.epochs must be positive, not -0\.5"),
        ({"batch_size": 0}, r"trainer\.batch_size must be positive"),
        ({"clip": 0.0}, r"trainer\.clip must be positive"),
        ({"eval_every": 0}, r"trainer\.eval_every must be positive"),
        ({"checkpoint_every": -1}, r"trainer\.checkpoint_every must be positive"),
        ({"log_every": 0}, r"trainer\.log_every must be positive"),
        ({"accumulate": 3}, r"batch_size=8 cannot be cut into trainer\.accumulate=3 equal parts"),
    ],
)
def test_numbers_that_cannot_be(wrong, said):
    with pytest.raises(ConfigError, match=said):
        Trainer(**GOOD | wrong)
