"""What `seqbench bench` measures of a configuration, and in which order.

Machines are noisy, and others may use them. So ours and the plain reference take turns in blocks of
steps, the ratio is taken in each round, and its median over the rounds is given with its spread.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from seqbench import machine
from seqbench.bench.ceilings import Ceilings, ceilings, step_flops
from seqbench.bench.loops import Loop, TrainerLoop
from seqbench.bench.memory import Growth
from seqbench.bench.plain import check_known, twin
from seqbench.bench.reference import Reference
from seqbench.bench.split import time_split
from seqbench.configuration import Config
from seqbench.errors import RunError, SeqbenchError
from seqbench.out_of_memory import is_out_of_memory

ROUNDS = 5
# Steps before anything is timed: first ones allocate, and choose kernels.
WARM_UP = 3
# What a round may take, in seconds, where nobody says how many steps it has; and those steps.
ROUND = 1.5
FEWEST, MOST = 2, 200


@dataclass(frozen=True)
class Spread:
    """Of some numbers the median, the 10th and the 90th percentile."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one number."""
        p10, median, p90 = np.percentile(values, [10, 50, 90]).tolist()
        return cls(median, p10, p90)


@dataclass(frozen=True)
class Comparison:
    """Two loops that took turns.

    Attributes:
        ours: seconds of each step.
        reference: the same of the other loop; empty if there was none.
        ratios: of each round, the reference's median step over ours.
    """

    ours: list[float]
    reference: list[float]
    ratios: list[float]


@dataclass(frozen=True)
class Measurement:
    """What was measured of one configuration; each field is a key of the JSON object.

    Attributes:
        task: its name.
        model: its name.
        parameters: trainable ones.
        device: in words.
        threads: of the CPU.
        precision: `fp32`, `bf16` or `fp16`.
        cuda_graph: whether steps were captured.
        batch_size: sequences a step.
        length: time steps of a training sequence, as the model reads it.
        rounds: how often both took turns.
        steps: timed in each round.
        step_ms: median of all timed steps, milliseconds; so are the times below.
        step_ms_p10: 10th percentile.
        step_ms_p90: 90th percentile.
        steps_per_second: of the median step, like the next two.
        samples_per_second: sequences.
        tokens_per_second: time steps of sequences.
        peak_memory_bytes: weights, optimiser, and what a step added at most; not the data. Of a
            text's steps the first one, which has no context to skip, is not among them.
        split: share of each part of a step.
        flops_per_step: of products and convolutions; `None` if they could not be counted.
        flops_counted: how.
        flops_per_second: reached.
        peak_flops_per_second: measured, of a large product of matrices.
        share_of_peak: the former over the latter.
        copy_bytes_per_second: measured, of a large copy, bytes read and written.
        reference_step_ms: of the plain implementation; `None`, like all below, without one.
        reference_step_ms_p10: 10th percentile.
        reference_step_ms_p90: 90th percentile.
        reference_flushes_denormals: whether its process takes denormal numbers for zero.
        ratio: reference over ours, median of the rounds.
        ratio_p10: 10th percentile of the rounds.
        ratio_p90: 90th percentile of the rounds.
    """

    task: str
    model: str
    parameters: int
    device: str
    threads: int
    precision: str
    cuda_graph: bool
    batch_size: int
    length: int
    rounds: int
    steps: int
    step_ms: float
    step_ms_p10: float
    step_ms_p90: float
    steps_per_second: float
    samples_per_second: float
    tokens_per_second: float
    peak_memory_bytes: int
    split: dict[str, float]
    flops_per_step: int | None
    flops_counted: str
    flops_per_second: float | None
    peak_flops_per_second: float
    share_of_peak: float | None
    copy_bytes_per_second: float
    reference_step_ms: float | None = None
    reference_step_ms_p10: float | None = None
    reference_step_ms_p90: float | None = None
    reference_flushes_denormals: bool | None = None
    ratio: float | None = None
    ratio_p10: float | None = None
    ratio_p90: float | None = None


def measure(
    config: Config,
    *,
    reference: bool = False,
    steps: int | None = None,
    rounds: int = ROUNDS,
    limits: Ceilings | None = None,
) -> Measurement:
    """Measure one configuration; nothing is left on disk.

    Args:
        config: checked, as `configuration.compose` gives it.
        reference: measure the plain implementation beside it.
        steps: in each round; `None`: as many as take about a second and a half.
        rounds: in which ours and the reference take turns.
        limits: the machine's, if they are known.

    Raises:
        SeqbenchError: the configuration cannot be built, the data cannot be had, or a step failed.
    """
    try:
        return _measure(config, reference, steps, rounds, limits)
    except (SeqbenchError, OSError):
        raise
    except Exception as error:  # a model or task of the user's may raise anything
        if is_out_of_memory(error):
            raise RunError(
                f"out of memory on device={config['device']}: try a smaller trainer.batch_size"
            ) from error
        line = str(error).split("\n")[0]
        raise RunError(f"a training step failed: {type(error).__name__}: {line}") from error


def _measure(
    config: Config, reference: bool, steps: int | None, rounds: int, limits: Ceilings | None
) -> Measurement:
    device = machine.prepare(config)
    theirs, facts = None, {}
    with ExitStack() as stack:
        if reference:
            check_known(config["model"])
            theirs = stack.enter_context(Reference(config, device, twin))  # sets up beside ours
        loop = TrainerLoop(config)
        loop.steps(1)  # what libraries set up for themselves, once, is not the model's memory
        growth = Growth(device)
        if theirs is not None:
            facts = theirs.ready()
        limits = limits or ceilings(device, loop.trainer.precision)
        compared = take_turns(loop, theirs, steps, rounds)
    progress = loop.experiment.state.progress
    tokens = progress.tokens / progress.step
    memory = growth.bytes + held(loop)
    split = time_split(loop, max(WARM_UP, len(compared.ours) // rounds))
    counted = step_flops(loop)

    times = Spread.of(compared.ours)
    rate = counted[0] / times.median if counted else None
    plain = Spread.of(compared.reference) if compared.reference else None
    ratio = Spread.of(compared.ratios) if compared.ratios else None
    return Measurement(
        task=config["choices"]["task"],
        model=config["choices"]["model"],
        parameters=loop.experiment.parameters,
        device=machine.device_name(device),
        threads=torch.get_num_threads(),
        precision=loop.trainer.precision,
        cuda_graph=loop.trainer.captures(device),
        batch_size=loop.trainer.batch_size,
        length=loop.experiment.task.spec.length,
        rounds=rounds,
        steps=len(compared.ours) // rounds,
        step_ms=1000 * times.median,
        step_ms_p10=1000 * times.p10,
        step_ms_p90=1000 * times.p90,
        steps_per_second=1 / times.median,
        samples_per_second=loop.trainer.batch_size / times.median,
        tokens_per_second=tokens / times.median,
        peak_memory_bytes=memory,
        split=split,
        flops_per_step=counted[0] if counted else None,
        flops_counted=counted[1] if counted else "not counted",
        flops_per_second=rate,
        peak_flops_per_second=limits.flops,
        share_of_peak=rate / limits.flops if rate else None,
        copy_bytes_per_second=limits.bandwidth,
        reference_step_ms=1000 * plain.median if plain else None,
        reference_step_ms_p10=1000 * plain.p10 if plain else None,
        reference_step_ms_p90=1000 * plain.p90 if plain else None,
        reference_flushes_denormals=facts.get("flushes"),
        ratio=ratio.median if ratio else None,
        ratio_p10=ratio.p10 if ratio else None,
        ratio_p90=ratio.p90 if ratio else None,
    )


def held(loop: TrainerLoop) -> int:
    """Bytes that weights and the optimiser's slots hold between steps."""
    state = loop.experiment.state
    slots = [slot for slots in state.optimizer.state.values() for slot in slots.values()]
    tensors = [*state.model.parameters(), *(slot for slot in slots if torch.is_tensor(slot))]
    return sum(tensor.nbytes for tensor in tensors)


def take_turns(
    ours: Loop, reference: Loop | None, steps: int | None = None, rounds: int = ROUNDS
) -> Comparison:
    """Let two loops take turns in blocks of steps, after a warm-up of each.

    Args:
        ours: the loop to judge.
        reference: the loop to judge it by; `None`: there is none.
        steps: in each block; `None`: as many as make a round of about a second and a half.
        rounds: blocks of each.
    """
    loops = [ours] if reference is None else [ours, reference]
    pace = sum(float(np.median(loop.steps(WARM_UP))) for loop in loops)
    count = steps or min(MOST, max(FEWEST, round(ROUND / pace)))
    turns = [[loop.steps(count) for loop in loops] for _ in range(rounds)]
    return Comparison(
        ours=[time for turn in turns for time in turn[0]],
        reference=[time for turn in turns for times in turn[1:] for time in times],
        ratios=[float(np.median(turn[1]) / np.median(turn[0])) for turn in turns if turn[1:]],
    )
