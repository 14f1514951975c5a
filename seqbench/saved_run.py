"""Load a trained model from its run's folder, to evaluate it again or to sample text from it."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from seqbench import machine
from seqbench.config import compose
from seqbench.errors import ConfigError, RunError
from seqbench.experiment import build_model, build_task
from seqbench.runs.identity import user_code_hashes
from seqbench.runs.record import RecordError
from seqbench.runs.run import Run
from seqbench.tasks.char_lm import SegmentTask
from seqbench.tasks.task import Split
from seqbench.tasks.vocabulary import REPLACEMENT
from seqbench.training import checkpoint
from seqbench.training.state import load_weights
from seqbench.training.trainer import Trainer


class SavedRun:
    """The best weights of a run, with the task that they were trained on.

    Args:
        folder: the run's folder.
        trust: packages besides seqbench whose code the config may name.
        data_dir: folder of the datasets; `None`: the default one, see `download.data_folder`.

    Raises:
        ConfigError: if there is no such run, or its config names code that is not trusted.
        RunError: if there are no weights, or they are damaged.
    """

    def __init__(
        self, folder: Path, trust: Sequence[str] = (), data_dir: str | None = None
    ) -> None:
        self.config = compose.read(folder / "config.yaml", trust)
        best = folder / "checkpoints" / checkpoint.BEST
        if not best.exists():
            raise RunError("this run has no weights: it did not come to its first evaluation")
        self.config["device"] = "auto"
        self.config["data_dir"] = data_dir
        self.device = machine.prepare(self.config)
        self.trainer: Trainer = compose.build("trainer", self.config)
        self.task = build_task(self.config, self.trainer)
        self.task.to(self.device)
        self.model = build_model(self.config, self.task)
        tensors, facts = checkpoint.load(best)
        load_weights(self.model, tensors)
        self.step: int | None = facts.get("step")
        record, now = None, user_code_hashes(self.config)
        with suppress(RecordError):
            record = Run(folder, folder.name).record
        # Custom code that was edited after training: the weights belong to the old code.
        self.edited = [
            self.config[node]["_target_"]
            for node, code in (record.code if record else {}).items()
            if node in now and now[node] != code
        ]
        self.model.to(self.device).eval()

    def evaluate(self, split: Split) -> dict[str, float]:
        """Return the task's metrics on a split."""
        return self.trainer.evaluate(self.model, self.task, split)

    def language_task(self) -> SegmentTask:
        """Return the run's task, if it is language modeling.

        Raises:
            ConfigError: if it is another task.
        """
        if not isinstance(self.task, SegmentTask):
            name = self.config["choices"]["task"]
            raise ConfigError(f"generate needs a language model, and this run is one of {name}")
        return self.task

    def unknown(self, text: str) -> int:
        """Return how many characters of a text are not in the language model's vocabulary."""
        return self.language_task().vocabulary.unknown_count(text)

    @torch.no_grad()
    def generate(self, prompt: str, length: int, temperature: float, seed: int) -> Iterator[str]:
        """Sample text and yield it one character at a time; all are of the vocabulary.

        A model that carries its state in training reads each character once. Any other reads the
        end of the text again for each character, at most as many as in training.

        Args:
            prompt: the text to continue.
            length: number of characters to sample.
            temperature: divides the logits; at 0 the likeliest character is chosen.
            seed: seed of the sampling.

        Raises:
            ConfigError: if the run is not a language model, or knows no character of the prompt.
        """
        task = self.language_task()
        if not prompt or self.unknown(prompt) == len(prompt):
            raise ConfigError("--prompt needs at least one character that was seen in training")
        characters = task.vocabulary.characters
        others = [i for i, character in enumerate(characters) if character == REPLACEMENT]
        no_character = torch.tensor(others, dtype=torch.int64)
        random = torch.Generator().manual_seed(seed)
        ids = torch.from_numpy(task.vocabulary.encode(prompt)).long()[None].to(self.device)
        logits, state = self.read(ids[:, -task.length :], None)
        for _ in range(length):
            logits = logits[0, -1].float().cpu().index_fill(0, no_character, -torch.inf)
            if temperature == 0:
                chosen = logits.argmax()[None]
            else:
                chosen = torch.multinomial((logits / temperature).softmax(0), 1, generator=random)
            yield task.vocabulary.decode(chosen.tolist())
            ids = torch.cat([ids, chosen[None].to(self.device)], 1)[:, -task.length :]
            logits, state = self.read(ids if state is None else ids[:, -1:], state)

    def read(self, ids: Tensor, state: object) -> tuple[Tensor, object]:
        """Run the model on ids `(1, time)`.

        Returns:
            Logits of one or more last positions, and the state; `None` if it is not carried.
        """
        if hasattr(self.model, "carry_state"):
            outputs, state = self.model(ids, state)
            return outputs, state if self.model.carry_state else None
        if getattr(self.model, "skips_context", False):
            return self.model(ids, ids.shape[1] - 1), None
        return self.model(ids), None
