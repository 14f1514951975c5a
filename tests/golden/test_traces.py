"""The first training steps of each pair of model and task equal the recorded ones.

The tolerance is for other processors and versions of torch. Between instruction sets of one
processor the traces differ by 1e-6.
"""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from seqbench.config.choices import choices_of

ROOT = Path(__file__).parents[2]
# Run by its path, since `scripts` is no package.
golden = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "record_golden.py")))
TRACES = json.loads(golden.TRACES.read_text(encoding="utf-8"))


def parameters():
    """Return all pairs; one model of each task, in turns, is not slow.

    Transformer-XL is left out of the turns: on long sequences a trace takes a minute.
    """
    models: dict[str, list[str]] = {}
    for task, model in golden.PAIRS:
        if model != "transformer_xl" or task == "char_markov":
            models.setdefault(task, []).append(model)
    fast = {(task, names[i % len(names)]) for i, (task, names) in enumerate(models.items())}
    return [
        pytest.param(*pair, marks=() if pair in fast else pytest.mark.slow, id=" ".join(pair))
        for pair in golden.PAIRS
    ]


def test_every_model_on_every_task_has_a_trace():
    assert sorted(golden.TASKS) == choices_of("task")
    assert sorted(golden.MODELS) == choices_of("model")
    assert sorted(TRACES) == sorted(f"{task} {model}" for task, model in golden.PAIRS)
    assert all(len(trace["losses"]) == 20 for trace in TRACES.values())


@pytest.mark.parametrize(("task", "model"), parameters())
def test_the_first_steps_are_as_recorded(task, model, request):
    data_dir = None if task in golden.GENERATED else str(request.getfixturevalue("real_data"))
    recorded = TRACES[f"{task} {model}"]
    trace = golden.trace(task, model, data_dir)
    assert trace["losses"] == pytest.approx(recorded["losses"], rel=1e-4)
    assert trace["valid"] == pytest.approx(recorded["valid"], rel=1e-4)
