"""Log runs to Weights & Biases, online or offline."""

from pathlib import Path
from typing import Any, Literal

import wandb

from seqbench.runs.identity import without_environment
from seqbench.runs.observer import Observer
from seqbench.runs.record import Record
from seqbench.runs.run import Run
from seqbench.trackers.tracker import measured, scores


class WandB(Observer):
    """A tracker with one W&B run per seqbench run, under the same id, resumed with it.

    Args:
        project: W&B project of the runs.
        entity: user or team; `None` for the default.
        mode: `offline` keeps everything on disk, for `wandb sync`; `None`: `$WANDB_MODE`, else
            `online`.
        folder: parent of the `wandb/` folder with W&B's files.
    """

    def __init__(
        self,
        project: str,
        entity: str | None,
        mode: Literal["online", "offline", "disabled"] | None,
        folder: str,
    ) -> None:
        self.project, self.entity, self.mode, self.folder = project, entity, mode, folder

    def started(self, facts: dict[str, Any]) -> None:
        config, choices = without_environment(facts["config"]), facts["config"]["choices"]
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        # Without `silent`, wandb asks for a missing API key, and the run waits for the answer.
        wandb.setup(wandb.Settings(silent=True))
        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            dir=self.folder,
            id=Run.of(facts["config"]).run_id,
            resume="allow",
            name=f"{choices['task']} {choices['model']} seed={config['seed']}",
            group=f"{choices['task']} {choices['model']}",
            config=config | {"parameters": facts["parameters"]},
            reinit="create_new",  # this process may train several seeds
            settings=wandb.Settings(console="off", silent=True),
        )
        # Use seqbench's step as the x-axis: a resumed run logs some steps again.
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def event(self, event: dict[str, Any]) -> None:
        self.run.log({"step": event["step"], **measured(event)})

    def finished(self, record: Record) -> None:
        self.run.summary.update({"status": record.status, **scores(record)})

    def close(self) -> None:
        self.run.finish()
