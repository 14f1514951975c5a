import pytest
import yaml

from seqbench.config.choices import CONFIG_FOLDER
from seqbench.config.compose import Composer
from seqbench.errors import ConfigError

RNN = {
    "_target_": "seqbench.models.rnn.RNN",
    "_partial_": True,
    "hidden_size": 3,
    "num_layers": 1,
    "dropout": 0.0,
    "embedding_dim": None,
    "tied": False,
}
GLOBAL = "# @package _global_\n"


def shipped(name):
    """Return the content of one of seqbench's config files."""
    return yaml.safe_load((CONFIG_FOLDER / f"{name}.yaml").read_text())


def write(folder, files):
    """Write YAML files into a config folder, `{"model/mine": {...} or text}`."""
    for name, content in files.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(folder)


@pytest.fixture(scope="session")
def composer():
    """Return one composer for all tests without a config folder: trees are merged once."""
    return Composer()


@pytest.fixture
def refused(composer):
    """Return a function that gives the one-line error of wrong overrides."""

    def refused(*overrides, config_dir=None):
        used = composer if config_dir is None else Composer(config_dir)
        with pytest.raises(ConfigError) as caught:
            used.compose(overrides)
        text = str(caught.value)
        assert text
        assert "\n" not in text
        return text

    return refused
