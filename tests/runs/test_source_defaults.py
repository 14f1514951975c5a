import re
from pathlib import Path

import pytest

from seqbench.config.choices import CONFIG_FOLDER
from seqbench.runs.defaults import signature_defaults
from seqbench.runs.source_defaults import source_defaults

SHIPPED = sorted(
    {
        target
        for path in CONFIG_FOLDER.rglob("*.yaml")
        for target in re.findall(r"_target_: *(seqbench\.[\w.]+)", path.read_text())
    }
)


def test_defaults_in_the_source_are_those_of_the_signatures():
    assert len(SHIPPED) > 25
    found = {target: source_defaults(target) for target in SHIPPED}
    assert found == {target: signature_defaults(target) for target in SHIPPED}
    assert found["seqbench.models.rnn.GRU"] == {"init_uniform": None}
    assert found["seqbench.training.trainer.Trainer"]["watch"] == "valid"


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.Adam",
        "seqbench.models.rnn.Nothing",
        "seqbench...",
        "None",
        "seqbench.a-b.C",
        "",
    ],
)
def test_other_names_have_none_and_nothing_outside_the_package_is_read(target, monkeypatch):
    inside = Path(__file__).parents[2] / "seqbench"
    read = Path.read_bytes

    def only_inside(path):
        assert inside in path.resolve().parents
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", only_inside)
    assert source_defaults(target) == {}
