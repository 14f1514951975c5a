"""Log runs to MLflow: an SQLite file or a server."""

import logging
import os
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric

from seqbench.results.where import flatten
from seqbench.runs.identity import without_environment
from seqbench.runs.observer import Observer
from seqbench.runs.record import Record
from seqbench.runs.run import Run
from seqbench.trackers.tracker import measured, scores

# By default MLflow retries an unreachable server for four minutes, while training waits.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
# MLflow logs a line for every table it creates.
logging.getLogger("mlflow").setLevel(logging.WARNING)

STATUS = {"completed": "FINISHED", "failed": "FAILED", "diverged": "FAILED"}
# The longest parameter value that the MLflow server accepts, in characters.
LONGEST = 500


class MLflow(Observer):
    """A tracker with one MLflow run per seqbench run, found by its `run_id` tag on resume.

    Args:
        uri: tracking store, as in `sqlite:///outputs/mlflow.db`.
        experiment: name of the MLflow experiment; created if it does not exist.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri, self.experiment = uri, experiment

    def started(self, facts: dict[str, Any]) -> None:
        with self.first_use():
            self.client = MlflowClient(self.uri)
            found = self.client.get_experiment_by_name(self.experiment)
            place = found.experiment_id if found else self.client.create_experiment(self.experiment)
        config, choices = without_environment(facts["config"]), facts["config"]["choices"]
        name = Run.of(facts["config"]).run_id
        runs = self.client.search_runs([place], f"tags.run_id = '{name}'", max_results=1)
        if runs:
            self.id = runs[0].info.run_id
            return
        run = self.client.create_run(
            place,
            tags={"run_id": name, "task": choices["task"], "model": choices["model"]},
            run_name=f"{choices['task']} {choices['model']} seed={config['seed']}",
        )
        self.id = run.info.run_id
        for key, value in (flatten(config) | {"parameters": facts["parameters"]}).items():
            self.client.log_param(self.id, key, str(value)[:LONGEST])

    def first_use(self) -> AbstractContextManager[object]:
        """Return a lock for setting up SQLite: the runs of a sweep would create the same tables."""
        if not self.uri.startswith("sqlite:///"):
            return nullcontext()
        database = Path(self.uri.removeprefix("sqlite:///"))
        database.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{database}.lock")

    def event(self, event: dict[str, Any]) -> None:
        self.log(measured(event), event["step"])

    def finished(self, record: Record) -> None:
        self.log(
            {f"final/{name}": value for name, value in scores(record).items()}, record.steps or 0
        )
        self.client.set_terminated(self.id, STATUS[record.status])

    def log(self, values: dict[str, float], step: int) -> None:
        """Log the metrics of one step."""
        now = round(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.id, metrics=metrics)

    def close(self) -> None:
        """Do nothing: the client keeps nothing open."""
