"""Load a trained model from its run's folder, to evaluate it again or to sample text from it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqbench import machine
from seqbench.config.build import build
from seqbench.config.moved import with_data_at
from seqbench.config.trust import read
from seqbench.errors import ConfigError, RunError
from seqbench.experiment.build import build_model, build_task
from seqbench.experiment.sampling import choose
from seqbench.models.sequence_model import SequenceModel, State
from seqbench.runs.forecasts import ForecastWindow, write_forecasts
from seqbench.runs.identity import user_code_hashes
from seqbench.runs.record import RecordError
from seqbench.runs.run import Run
from seqbench.spec import SequenceSpec
from seqbench.tasks.task import Split, Task
from seqbench.tasks.tokenization import Tokenization, kept_tokenization
from seqbench.tasks.vocabulary import REPLACEMENT
from seqbench.tasks.window_task import WindowTask
from seqbench.training import checkpoint
from seqbench.training.forecast_rows import ForecastRows, ForecastSample, index_of
from seqbench.training.predictions import Columns, PredictionRows
from seqbench.training.state import load_weights
from seqbench.training.trainer import Observe, Trainer, ignore

# Bytes of a character in UTF-8, at most.
LONGEST_CHARACTER = 4


class SavedRun:
    """The best weights of a run.

    The data are loaded only where they are needed: `evaluate`, or weights of an earlier version.

    Args:
        folder: the run's folder.
        trust: packages besides seqbench whose code the config may name.
        data_dir: folder of the datasets; `None`: the default one, see `download.data_folder`.
        overrides: where the data are now, as for `with_data_at`.

    Attributes:
        run: the files of the folder.

    Raises:
        ConfigError: if there is no such run, its config names code that is not trusted, or an
            override is refused.
        DataError: if an override names a file that cannot be read.
        RunError: if there are no weights, or they are damaged.
    """

    def __init__(
        self,
        folder: Path,
        trust: Sequence[str] = (),
        data_dir: str | None = None,
        overrides: Sequence[str] = (),
    ) -> None:
        config = read(folder / "config.yaml", trust) | {"data_dir": data_dir}
        self.config = with_data_at(config, overrides)
        best = folder / "checkpoints" / checkpoint.BEST
        if not best.exists():
            raise RunError("this run has no weights: it did not come to its first evaluation")
        self.config["device"] = "auto"
        self.device = machine.prepare(self.config)
        self.trainer: Trainer = build("trainer", self.config)
        tensors, facts = checkpoint.load(best)
        self.step: int | None = facts.get("step")
        # Earlier versions kept neither with the weights.
        self.preprocessing: dict[str, Any] | None = facts.get("preprocessing")
        try:
            spec = SequenceSpec.from_json(facts["spec"]) if "spec" in facts else self.task.spec
        except (KeyError, TypeError) as error:
            raise RunError(f"checkpoint {best} has no valid spec: {error}") from error
        self.spec = spec
        self.model = build_model(self.config, spec)
        load_weights(self.model, tensors)
        self.model.to(self.device).eval()
        self.run = Run(folder)
        record, now = None, user_code_hashes(self.config)
        with suppress(RecordError):
            record = self.run.record
        # Custom code that was edited after training: the weights belong to the old code.
        self.edited = [
            self.config[node]["_target_"]
            for node, code in (record.code if record else {}).items()
            if node in now and now[node] != code
        ]

    @cached_property
    def task(self) -> Task:
        """The run's task, with its data on the device."""
        task = build_task(self.config, self.trainer)
        task.to(self.device)
        return task

    @cached_property
    def tokenization(self) -> Tokenization | None:
        """The tokens that the model reads; `None` if it reads no text.

        Raises:
            ConfigError: if a library is missing.
            RunError: if the vocabulary is damaged.
        """
        kept = self.task.preprocessing() if self.preprocessing is None else self.preprocessing
        return kept_tokenization(kept)

    @property
    def vocabulary(self) -> Tokenization:
        """The vocabulary of a language model.

        Raises:
            ConfigError: if the run is of another task, or as for `tokenization`.
            RunError: as for `tokenization`.
        """
        found = self.tokenization
        if found is None or self.spec.readout != "every":
            name = self.config["choices"]["task"]
            raise ConfigError(f"generate needs a language model, and this run is one of {name}")
        return found

    def evaluate(
        self,
        split: Split,
        task: Task | None = None,
        write: Callable[[Columns], None] | None = None,
        model: SequenceModel | None = None,
    ) -> dict[str, float]:
        """Return the metrics of the weights on a split.

        Args:
            split: what to score.
            task: gives the data; `None`: the run's task.
            model: has the weights; `None`: the run's model.
            write: receives the predictions, see `PredictionRows` and `ForecastRows`.
        """
        task = task or self.task
        observe: Observe = ignore
        if write is not None and isinstance(task, WindowTask):
            observe = ForecastRows(task, split, write)
        elif write is not None:
            kept = task.preprocessing()
            names = kept.get("classes", ())
            if not names and (vocabulary := kept_tokenization(kept)):
                names = vocabulary.names
            observe = PredictionRows(task, write, names)
        return self.trainer.evaluate(model or self.model, task, split, observe)

    def keep_forecasts(self) -> None:
        """Write a few forecasts of the test to the folder of a run that has none.

        Runs of earlier versions have none.

        Raises:
            OSError: if the folder cannot be written.
        """
        task, path = self.task, self.run.forecasts_path
        if isinstance(task, WindowTask) and not path.exists():
            sample = ForecastSample(task)
            self.trainer.evaluate(self.model, task, "test", sample)
            write_forecasts(path, sample.windows())

    def forecast_window(self, typed: str) -> list[ForecastWindow]:
        """Return a window of the test to draw, see `index_of`.

        Raises:
            ConfigError: if there is no such window, or the run is of another task.
        """
        task = self.task
        if not isinstance(task, WindowTask):
            name = self.config["choices"]["task"]
            raise ConfigError(f"--window is for runs that forecast, and this is one of {name}")
        sample = ForecastSample(task, index_of(task, typed))
        self.trainer.evaluate(self.model, task, "test", sample)
        return sample.windows()

    def unknown(self, text: str) -> int:
        """Return how many tokens of a text are not in the language model's vocabulary."""
        return self.vocabulary.unknown_count(text)

    @torch.no_grad()
    def generate(
        self, prompt: str, length: int, temperature: float, seed: int, top_k: int | None = None
    ) -> Iterator[str]:
        """Sample text and yield it one token at a time; all are of the vocabulary.

        A model that carries its state in training reads each token once. Any other reads the end of
        the text again for each token, at most as many as in training.

        Args:
            prompt: the text to continue.
            length: number of tokens to sample.
            temperature: see `choose`.
            seed: seed of the sampling.
            top_k: see `choose`.

        Raises:
            ConfigError: if the run is not a language model, or knows no token of the prompt.
        """
        vocabulary, window = self.vocabulary, self.spec.length
        encoded = vocabulary.encode(prompt)
        if self.unknown(prompt) == len(encoded):
            one = vocabulary.unit.removesuffix("s")
            raise ConfigError(f"the prompt needs at least one {one} that was seen in training")
        unwritten = torch.tensor(vocabulary.unwritten, dtype=torch.int64)
        random = torch.Generator().manual_seed(seed)
        ids = torch.from_numpy(encoded).long()[None].to(self.device)
        logits, state = self.read(ids[:, -window:], None)
        # Tokens without a text so far: the first bytes of a character.
        held: list[int] = []
        before = None if prompt[-1].isspace() else int(encoded[-1])
        for left in reversed(range(length)):
            logits = logits[0, -1].float().cpu().index_fill(0, unwritten, -torch.inf)
            chosen = choose(logits, temperature, top_k, random)
            held += chosen.tolist()
            text = vocabulary.decode(held, before)
            if not left or len(held) == LONGEST_CHARACTER or not text.endswith(REPLACEMENT):
                yield text
                before, held = held[-1], []
            ids = torch.cat([ids, chosen[None].to(self.device)], 1)[:, -window:]
            logits, state = self.read(ids if state is None else ids[:, -1:], state)

    def read(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Run the model on ids `(1, time)`.

        Returns:
            Logits of one or more last positions, and the state; `None` if it is not carried.
        """
        skipped = ids.shape[1] - 1 if self.model.skips_context else 0
        outputs, state = self.model(ids, state, skipped)
        return outputs, state if self.model.carry_state else None
