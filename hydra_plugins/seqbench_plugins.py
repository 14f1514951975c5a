"""Register seqbench's launchers and sweepers with Hydra, which searches this namespace only.

Each is a thin class around one of `seqbench.launch`. That package is imported on first use, because
Hydra imports this file at every start.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from seqbench.errors import ConfigError

if TYPE_CHECKING:
    from seqbench.launch.engine import Engine
    from seqbench.launch.sweep import Sweep


def checked(name: str, target: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings for a target, with whole floats as ints where it takes ints.

    Raises:
        ConfigError: if the target does not accept them.
    """
    from seqbench.config.schema import check_node, integers_in

    node = integers_in({"_target_": target, **settings}, name)
    check_node(name, node)
    return {key: value for key, value in node.items() if key != "_target_"}


class SeqbenchLauncher(Launcher):
    """A Hydra launcher that runs jobs on a seqbench engine.

    Args:
        **settings: arguments of the engine `target`.
    """

    target: str

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)

    def setup(self, *, task_function: Any, **unused: Any) -> None:
        self.sweep: Sweep = task_function

    def engine(self) -> "Engine":
        """Return a new engine with these settings."""
        from seqbench.config.schema import import_target

        return import_target(self.target, "launch")(**self.settings)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        # Report wrong settings even if no job is due.
        self.settings = checked("launch", self.target, self.settings)
        endings = self.sweep.launch(job_overrides, self.engine)
        results = []
        for words, ending in zip(job_overrides, endings, strict=True):
            done = ending.how == "completed"
            result = JobReturn(overrides=words)
            result.status = JobStatus.COMPLETED if done else JobStatus.FAILED
            # An optimizing sweeper reads this: the score, or the error that Hydra raises for it.
            result.return_value = ending.score if done else RuntimeError(ending.reason)
            results.append(result)
        return results


class LocalLauncher(SeqbenchLauncher):
    """A launcher for processes on this machine."""

    target = "seqbench.launch.local.LocalEngine"


class SlurmLauncher(SeqbenchLauncher):
    """A launcher for job arrays on a SLURM cluster."""

    target = "seqbench.launch.slurm.SlurmEngine"


class RayLauncher(SeqbenchLauncher):
    """A launcher for tasks on a Ray cluster."""

    target = "seqbench.launch.ray_cluster.RayEngine"


class GridSweeper(BasicSweeper):
    """A sweeper over all combinations of the values given, built as Hydra's basic sweeper does.

    Unlike the basic sweeper, it leaves composing to the launcher (faster), continues after a
    failure, and writes no file.
    """

    def __init__(self) -> None:
        super().__init__(max_batch_size=None)

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        assert self.hydra_context is not None
        assert self.launcher is not None
        parser = OverridesParser.create(self.hydra_context.config_loader)
        [jobs] = self.split_arguments(parser.parse_overrides(arguments), None)
        if not jobs:
            raise ConfigError("one of the values is an empty range or choice: there is no run")
        return [self.launcher.launch(jobs, initial_job_idx=0)]


class OptunaSweeper(Sweeper):
    """A sweeper that searches with Optuna instead of running every combination.

    Args:
        **settings: fields of `Settings` in seqbench/launch/study.py.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.task_function: Sweep = task_function
        self.parser = OverridesParser.create(hydra_context.config_loader)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        try:
            from seqbench.launch.search import search
            from seqbench.launch.study import Settings
        except ModuleNotFoundError as error:
            if error.name != "optuna":
                raise
            raise ConfigError("search=optuna needs Optuna: pip install 'seqbench[hpo]'") from None
        launcher = self.launcher
        assert launcher is not None
        settings = Settings(**checked("search", f"{Settings.__module__}.Settings", self.settings))
        typed = self.parser.parse_overrides(arguments)
        search(settings, self.task_function, lambda words: launcher.launch(words, 0), typed)
