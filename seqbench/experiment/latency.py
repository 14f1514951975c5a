"""Measure how long a compressed model and its parent take for one example, in turns."""

import resource
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import torch

from seqbench.config import Config
from seqbench.config.trust import read
from seqbench.errors import SeqbenchError
from seqbench.experiment.build import build_model
from seqbench.models.sequence_model import SequenceModel
from seqbench.runs.run import Run
from seqbench.tasks.task import Batch, Task
from seqbench.training import checkpoint
from seqbench.training.prediction import predict
from seqbench.training.state import load_weights

# Pairs of forward passes that are not counted, the fewest and the most that are.
WARM_UP, FEWEST, MOST = 3, 11, 500
# Seconds of measuring, and the most of them if other processes interrupt too many pairs.
SECONDS, LONGEST = 1.0, 5.0


def compared_with_parent(model: SequenceModel, task: Task, config: Config) -> dict[str, Any]:
    """Return what a compressed model takes beside its parent, for `Record.measured`.

    Args:
        model: with its weights as they are loaded, on its device.
        task: gives the first example of its test split.
        config: the run's config.

    Returns:
        `parent_bytes`; `latency` and `parent_latency`, medians in seconds for one example; and
        `latency_ratio`, the median ratio of pairs. Empty if the parent is gone or not trusted.
    """
    path = Path(config["init_from"])
    with suppress(OSError, SeqbenchError):
        parent = parent_model(path, config, task)
        parent.to(next(model.parameters()).device)
        example = next(iter(task.eval_batches("test")))
        example = example.split(len(example.inputs))[0]
        return {"parent_bytes": path.stat().st_size, **in_turns(model, parent, task, example)}
    return {}


def parent_model(path: Path, config: Config, task: Task) -> SequenceModel:
    """Return the model of the run that a file of weights belongs to, with these weights.

    Raises:
        SeqbenchError: if the run cannot be read, or names code that the compressed run does not.
    """
    target = config["model"]["_target_"]
    before = read(Run.of_weights(path).config_path, [target.rpartition(".")[0]])
    parent = build_model(before, task.spec)
    load_weights(parent, checkpoint.load(path)[0])
    return parent


@torch.inference_mode()
def in_turns(
    model: SequenceModel, parent: SequenceModel, task: Task, example: Batch
) -> dict[str, float]:
    """Run two models on one example, one after the other, many times; see the result above.

    On a busy machine, pairs during which another process took the processor do not count, unless
    there are too few others.
    """
    models = (model.eval(), parent.eval())
    pairs: list[tuple[float, float]] = []
    calm: list[tuple[float, float]] = []
    started = time.perf_counter()
    while len(pairs) < MOST:
        passed = time.perf_counter() - started
        enough = len(calm) >= FEWEST or passed > LONGEST
        if len(pairs) >= WARM_UP + FEWEST and passed > SECONDS and enough:
            break
        # The second of a pair finds warmer caches: each model is first in half of the pairs.
        order = (0, 1) if len(pairs) % 2 else (1, 0)
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        taken = {i: seconds_of(models[i], task, example) for i in order}
        pairs.append((taken[0], taken[1]))
        if switches == resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw:
            calm += pairs[-1:] if len(pairs) > WARM_UP else []
    counted = calm if len(calm) >= FEWEST else pairs[WARM_UP:]
    return {
        "latency": median(own for own, _ in counted),
        "parent_latency": median(other for _, other in counted),
        "latency_ratio": median(own / other for own, other in counted),
    }


def seconds_of(model: SequenceModel, task: Task, example: Batch) -> float:
    """Return the seconds of a forward pass on an example."""
    started = time.perf_counter()
    outputs, _, _ = predict(model, example, None, task.spec)
    outputs.cpu()  # waits for a GPU
    return time.perf_counter() - started
