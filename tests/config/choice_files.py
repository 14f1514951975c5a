"""Files of choices for the tests: a small model, and a function that writes config folders."""

import yaml

from seqbench.config.choices import CONFIG_FOLDER

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
