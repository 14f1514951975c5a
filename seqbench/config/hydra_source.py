"""Give Hydra the choices: of the user's folder, of seqbench and of plug-ins."""

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from seqbench.config.choices import choices_of, find_choice, folders


class ChoiceSource(ConfigSource):
    """A source of configs for Hydra, whose errors name file and line.

    Unlike Hydra's sources it needs no registration in a global, so that seqbench composes inside
    another Hydra application, too.

    Args:
        config_dir: folder with the user's choices.
    """

    def __init__(self, config_dir: str | None) -> None:
        super().__init__(provider="seqbench", path=f"{self.scheme()}://")
        self.config_dir = config_dir

    @staticmethod
    def scheme() -> str:
        return "seqbench"

    def available(self) -> bool:
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        choice = find_choice(config_path, self.config_dir)
        if choice is None:
            raise ConfigLoadError(f"no config {config_path}")
        content = choice.content if isinstance(choice.content, dict | list) else {}
        return ConfigResult(
            provider=self.provider,
            path=self.path,
            config=OmegaConf.create(content),
            header={"package": choice.package},
        )

    def is_group(self, config_path: str) -> bool:
        return any((folder / config_path).is_dir() for folder in folders(self.config_dir))

    def is_config(self, config_path: str) -> bool:
        return find_choice(config_path, self.config_dir) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return choices_of(config_path, self.config_dir)


def repository_of(*sources: ConfigSource) -> ConfigRepository:
    """Return a repository of configs that Hydra reads from these sources, the first one first."""
    repository = ConfigRepository(ConfigSearchPathImpl())
    repository.sources = [*sources]
    return repository
