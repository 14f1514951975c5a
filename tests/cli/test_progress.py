import io
from dataclasses import replace

import pytest
from record_factory import make_record
from rich.console import Console
from rich.text import Text

from seqbench.cli.progress import ROOM, Terminal
from seqbench.config.compose import compose
from seqbench.errors import Interrupted
from seqbench.runs.run import Run
from seqbench.tasks.task import Primary

FACTS = {
    "primary": Primary("accuracy", "max"),
    "best": None,
    "notes": {},
    "length": 784,
    "sequence": 784,
    "parameters": 1,
    "total_steps": 20,
    "step": 0,
    "device": "cpu",
    "baseline": 0.1,
    "naive": {},
    "optimum": None,
    "receptive_field": None,
    "remark": "",
    "continues": None,
    "initial": [],
    "together": 1,
}


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("place", ["outputs", "a folder"])
def test_the_next_commands_can_be_copied_from_a_narrow_terminal(is_terminal, place):
    again = ["model=tcn", "task=adding", "budget=smoke", "trainer.steps=20", "seed=1"]
    config = compose([*again, f"output_dir={place}"])
    record = replace(make_record(seed=1), run_id=Run.of(config).run_id)
    terminal = Terminal(config, again)
    shown = io.StringIO()
    terminal.console = Console(file=shown, width=40, force_terminal=is_terminal, no_color=True)
    terminal.finished(record)
    plain = Text.from_ansi(shown.getvalue()).plain
    lines = [line[16:].rstrip() for line in plain.splitlines()[-4:]]
    elsewhere = "" if place == "outputs" else " --output-dir 'a folder'"
    assert lines == [
        f"{place}/runs/adding/tcn/{record.run_id}",
        "seqbench train model=tcn task=adding budget=smoke trainer.steps=20 seed=2",
        f"seqbench table{elsewhere}",
        f"seqbench show {record.run_id[:8]}{elsewhere}",
    ]


@pytest.mark.parametrize(
    ("width", "expected"),
    [(80, "loss 0.312, valid 97.1 %"), (120, "loss 0.312, valid accuracy 97.1 %, best 97.1")],
)
def test_a_narrow_bar_is_not_cut_off_at_its_end(width, expected, monkeypatch):
    config = compose(["model=tcn", "task=smnist", "budget=smoke"])
    terminal = Terminal(config, [])
    terminal.console = Console(file=io.StringIO(), width=width, force_terminal=True)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    terminal.started(FACTS | {"config": config})
    terminal.event({"step": 5, "split": "train", "loss": 0.312})
    terminal.event({"step": 5, "split": "valid", "accuracy": 0.9712})
    assert terminal.bar is not None
    assert terminal.bar.postfix == expected
    terminal.bar.close()


@pytest.mark.parametrize(
    ("error", "step"),
    [(Interrupted("interrupted at step 17 of 20", 2, 17), 17), (KeyboardInterrupt(), 5)],
)
def test_an_interrupted_bar_ends_in_a_line_of_its_own_at_the_last_step(error, step, monkeypatch):
    config = compose(["model=tcn", "task=smnist", "budget=smoke"])
    terminal = Terminal(config, [])
    terminal.console = Console(file=io.StringIO(), width=80, force_terminal=True)
    drawn = io.StringIO()
    monkeypatch.setattr("sys.stderr", drawn)
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda file: (80, 24))
    terminal.started(FACTS | {"config": config})
    terminal.event({"step": 5, "split": "train", "loss": 0.312})
    with pytest.raises(type(error)), terminal.closed_at_the_end():
        raise error
    shown = drawn.getvalue()
    assert shown.endswith("\n")
    last = shown.rstrip().rpartition("\r")[2]
    assert f"| {step}/20 [" in last
    assert len(last) == 80 - ROOM  # `^C` fits beside it
    terminal.bar.close()
    assert drawn.getvalue() == shown


def test_an_error_before_the_bar_is_passed_on():
    terminal = Terminal(compose(["model=tcn"]), [])
    with pytest.raises(Interrupted), terminal.closed_at_the_end():
        raise Interrupted("before the first step")
