"""Measure a config's training step for `seqbench bench`: time, memory, FLOPs, and speed ratio.

Other programs may disturb the timing. So seqbench and the plain reference run blocks of steps in
turn, each round gives a ratio, and the result is its median over rounds with its spread.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from seqbench import machine
from seqbench.bench.flops import PeakRates, peak_rates, step_flops
from seqbench.bench.loop import Loop, time_split
from seqbench.bench.reference import Reference
from seqbench.config import Config
from seqbench.errors import RunError, SeqbenchError, is_out_of_memory, typed_line
from seqbench.experiment.build import Experiment
from seqbench.models.plain import check_known
from seqbench.training.state import TrainingState

ROUNDS = 5
# Untimed steps: the first ones allocate memory and choose kernels.
WARM_UP = 3
# Seconds of a round if its number of steps is not given, and bounds of that number.
ROUND = 1.5
FEWEST, MOST = 2, 200


@dataclass(frozen=True)
class Spread:
    """Median, 10th and 90th percentile of some numbers."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Compute the spread of at least one number."""
        p10, median, p90 = np.percentile(values, [10, 50, 90]).tolist()
        return cls(median, p10, p90)


class Steps(Protocol):
    """Training steps that can be timed."""

    def run_steps(self, count: int) -> list[float]:
        """Run `count` training steps, and return the seconds of each."""


@dataclass(frozen=True)
class Comparison:
    """Step times of two loops that ran in turn.

    Attributes:
        seqbench: seconds of each step of seqbench.
        reference: seconds of each step of the reference; empty without one.
        ratios: median step time of the reference over that of seqbench, one per round.
    """

    seqbench: list[float]
    reference: list[float]
    ratios: list[float]


@dataclass(frozen=True)
class Measurement:
    """The measurement of one config; each field is a key of the JSON output.

    Attributes:
        task: name of the task.
        model: name of the model.
        parameters: number of trainable parameters.
        device: name of the device.
        threads: number of CPU threads.
        precision: `fp32`, `bf16` or `fp16`.
        cuda_graph: True if steps were captured as a CUDA graph.
        batch_size: sequences per step.
        length: time steps of a training sequence, as the model reads it.
        rounds: number of rounds.
        steps: timed steps per round.
        step_ms: median of all timed steps, in milliseconds.
        step_ms_p10: 10th percentile of all timed steps.
        step_ms_p90: 90th percentile of all timed steps.
        steps_per_second: steps per second at the median step time.
        samples_per_second: sequences per second at the median step time.
        tokens_per_second: time steps of sequences per second at the median step time.
        peak_memory_bytes: weights, optimizer state and the most that a step adds; without the data.
            The first step is not included: on text it has no context to skip.
        split: share of each part of a step, see `loop.time_split`.
        flops_per_step: FLOPs of GEMMs and convolutions; `None` if they cannot be counted.
        flops_counted: the method of counting, in words.
        flops_per_second: `flops_per_step` over the median step time.
        peak_flops_per_second: measured with a large GEMM.
        share_of_peak: `flops_per_second` over `peak_flops_per_second`.
        copy_bytes_per_second: measured with a large copy, bytes read plus bytes written.
        reference_step_ms: median step of the plain reference. This field and those below are `None`
            without a reference.
        reference_step_ms_p10: 10th percentile.
        reference_step_ms_p90: 90th percentile.
        reference_flushes_denormals: True if the reference's process flushes denormals to zero.
        ratio: step time of the reference over that of seqbench, median of the rounds.
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
    limits: PeakRates | None = None,
) -> Measurement:
    """Measure one config; leave nothing on disk.

    Args:
        config: a checked config, from `configuration.compose`.
        reference: True to measure the plain reference, too.
        steps: steps per round; `None`: as many as make a round of about 1.5 seconds.
        rounds: number of rounds.
        limits: the machine's peak rates; `None`: measure them.

    Raises:
        SeqbenchError: if the config cannot be built, the data cannot be loaded, or a step fails.
    """
    try:
        return _measure(config, reference, steps, rounds, limits)
    except (SeqbenchError, OSError):
        raise
    except Exception as error:  # a custom model or task may raise anything
        if is_out_of_memory(error):
            raise RunError(
                f"out of memory on device={config['device']}: try a smaller trainer.batch_size"
            ) from error
        raise RunError(f"a training step failed: {typed_line(error)}") from error


def _measure(
    config: Config, reference: bool, steps: int | None, rounds: int, limits: PeakRates | None
) -> Measurement:
    device = machine.prepare(config)
    if reference:
        check_known(config["model"])
    with Reference(config, device) if reference else nullcontext() as plain:  # sets up in parallel
        experiment = Experiment(config)
        loop = Loop.of(experiment)
        loop.run_steps(1)  # allocations that libraries make once are not the model's memory
        machine.reset_peak_memory(device)
        before = machine.peak_memory(device)
        facts = plain.ready() if plain else {}
        limits = limits or peak_rates(device, loop.trainer.precision)
        compared = time_alternately(loop, plain, steps, rounds)
    memory = machine.peak_memory(device) - before + bytes_held(loop.state)
    tokens = loop.state.progress.tokens / loop.state.progress.step
    count = len(compared.seqbench) // rounds
    split = time_split(loop, max(WARM_UP, count))
    flops, how = step_flops(loop) or (None, "not counted")
    times = Spread.of(compared.seqbench)
    rate = None if flops is None else flops / times.median
    reference_times = Spread.of(compared.reference) if compared.reference else None
    ratio = Spread.of(compared.ratios) if compared.ratios else None
    return Measurement(
        task=config["choices"]["task"],
        model=config["choices"]["model"],
        parameters=experiment.parameters,
        device=machine.device_name(device),
        threads=torch.get_num_threads(),
        precision=loop.trainer.precision,
        cuda_graph=experiment.captures_steps,
        batch_size=loop.trainer.batch_size,
        length=loop.task.spec.length,
        rounds=rounds,
        steps=count,
        step_ms=1000 * times.median,
        step_ms_p10=1000 * times.p10,
        step_ms_p90=1000 * times.p90,
        steps_per_second=1 / times.median,
        samples_per_second=loop.trainer.batch_size / times.median,
        tokens_per_second=tokens / times.median,
        peak_memory_bytes=memory,
        split=split,
        flops_per_step=flops,
        flops_counted=how,
        flops_per_second=rate,
        peak_flops_per_second=limits.flops,
        share_of_peak=rate / limits.flops if rate else None,
        copy_bytes_per_second=limits.bandwidth,
        reference_step_ms=1000 * reference_times.median if reference_times else None,
        reference_step_ms_p10=1000 * reference_times.p10 if reference_times else None,
        reference_step_ms_p90=1000 * reference_times.p90 if reference_times else None,
        reference_flushes_denormals=facts.get("flushes"),
        ratio=ratio.median if ratio else None,
        ratio_p10=ratio.p10 if ratio else None,
        ratio_p90=ratio.p90 if ratio else None,
    )


def bytes_held(state: TrainingState) -> int:
    """Return the bytes of the weights and the optimizer state."""
    slots = [slot for slots in state.optimizer.state.values() for slot in slots.values()]
    tensors = [*state.model.parameters(), *(slot for slot in slots if torch.is_tensor(slot))]
    return sum(tensor.nbytes for tensor in tensors)


def time_alternately(
    seqbench: Steps, reference: Steps | None, steps: int | None = None, rounds: int = ROUNDS
) -> Comparison:
    """Time two loops in alternating blocks of steps, after a warm-up of each.

    Args:
        seqbench: the loop of seqbench.
        reference: the loop to compare with; `None`: time that of seqbench alone.
        steps: steps per block; `None`: as many as make a round of about 1.5 seconds.
        rounds: blocks of each loop.
    """
    loops = [seqbench] if reference is None else [seqbench, reference]
    pace = sum(float(np.median(loop.run_steps(WARM_UP))) for loop in loops)
    count = steps or min(MOST, max(FEWEST, round(ROUND / pace)))
    turns = [[loop.run_steps(count) for loop in loops] for _ in range(rounds)]
    return Comparison(
        seqbench=[time for turn in turns for time in turn[0]],
        reference=[time for turn in turns for times in turn[1:] for time in times],
        ratios=[float(np.median(turn[1]) / np.median(turn[0])) for turn in turns if turn[1:]],
    )
