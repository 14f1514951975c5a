import ast

import pytest

from seqbench.runs import source_hash as hashing
from seqbench.runs.source_hash import PACKAGE, source_hash


def config_of(model, task):
    return {
        "model": {"_target_": model},
        "task": {"_target_": task},
        "trainer": {"_target_": "seqbench.training.trainer.Trainer"},
        "optimizer": {"_target_": "torch.optim.Adam"},
    }


@pytest.fixture
def hashed(monkeypatch):
    """Return a function that returns the names of the files that `source_hash` covers."""
    seen = []
    monkeypatch.setattr(hashing, "hash_of", lambda codes: seen.append(set(codes)) or "0" * 64)

    def files(config):
        hashing._source_hash.cache_clear()
        source_hash(config)
        return seen.pop()

    yield files
    hashing._source_hash.cache_clear()


TCN, ADDING = "seqbench.models.tcn.TCN", "seqbench.tasks.adding.Adding"


def test_the_source_hash_covers_what_computes_the_run(hashed):
    files = hashed(config_of(TCN, ADDING))
    needed = {"spec.py", "models/tcn.py", "models/sequence_model.py", "tasks/adding.py"}
    needed |= {"training/trainer.py", "training/step.py", "kernels/ops.py", "kernels/build.py"}
    assert needed < files
    assert any(name.startswith("kernels/csrc/") for name in files)
    others = {"models/llama.py", "tasks/music.py", "datasets/music.py", "training/together.py"}
    assert not files & (others | {"runs/source_hash.py", "errors.py"})
    music = hashed(config_of(TCN, "seqbench.tasks.music.Music"))
    assert {"tasks/music.py", "datasets/music.py"} < music


@pytest.mark.parametrize("target", ["mine.Net", "seqbench.models.none.Net", "seqbench./.x", "x"])
def test_the_source_hash_of_a_class_that_is_not_seqbenchs_covers_all_that_computes(hashed, target):
    files = hashed(config_of(target, ADDING))
    for part in ("spec.py", "datasets", "kernels", "models", "tasks", "training"):
        own = [PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).rglob("*")
        for path in own:
            if path.is_file() and path.suffix not in (".pyc", ".md"):
                assert path.relative_to(PACKAGE).as_posix() in files


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Return a function that replaces text in a module of seqbench, for its hash only."""

    def replace(name, old, new):
        text = (PACKAGE / name).read_text()
        assert old in text
        (tmp_path / "edited.py").write_text(text.replace(old, new))
        own = hashing._statements
        monkeypatch.setattr(
            hashing,
            "_statements",
            lambda path: own(tmp_path / "edited.py" if path == PACKAGE / name else path),
        )
        hashing._source_hash.cache_clear()

    yield replace
    monkeypatch.undo()
    hashing._source_hash.cache_clear()


LSTM = "seqbench.models.rnn.LSTM"


@pytest.mark.parametrize(
    ("model", "name", "old", "new", "same"),
    [
        (TCN, "models/tcn.py", "class TCN(", "class TCN(object, ", False),
        (TCN, "models/tcn.py", "class Block(", "class Block(object, ", False),
        (TCN, "models/llama.py", "class Block(", "class Block(object, ", True),
        (LSTM, "models/rnn.py", "class GRU(", "class GRU(object, ", True),
        (LSTM, "models/rnn.py", "class Gated(", "class Gated(object, ", False),
        (LSTM, "models/rnn.py", "class Recurrent(", "class Recurrent(object, ", False),
        (LSTM, "models/rnn.py", "must be at least 1", "must be 1 or more", True),
        (LSTM, "models/rnn.py", "if hidden_size < 1", "if hidden_size < 2", False),
        (TCN, "training/trainer.py", "signal, step", "step, signal", False),  # of `Interrupted`
        (LSTM, "training/step.py", "import torch", "import torch\nx = 1", False),
    ],
)
def test_code_that_a_run_does_not_use_and_messages_do_not_count(
    edited, model, name, old, new, same
):
    config = config_of(model, ADDING)
    before = source_hash(config)
    edited(name, old, new)
    assert (source_hash(config) == before) == same


def test_classes_and_imports_that_nothing_else_names_do_not_count():
    module = ast.parse("""
import a
from a import b
from a import c as d
from a import *
from seqbench import e
from seqbench import ByAlias as f
class Unused: x = a, b
class ByName: pass
class ByAttribute: pass
class ByPath: pass
class ByAlias: pass
class Other: pass
@register
class Registered: x = d
class Derived(ByName): pass
def g(): return Derived, e.ByAttribute, "seqbench.e.ByPath", nn.Other
""")

    def left_out(*used):
        nodes = hashing.without_unused_classes({"m": module.body}, frozenset(used))["m"]
        return [ast.unparse(node).split(":")[0] for node in module.body if node not in nodes]

    assert left_out() == ["import a", "from a import b", "class Unused", "class Other"]
    assert left_out("Unused") == ["class Other"]


def test_nothing_that_computes_finds_classes_without_their_names():
    for part in hashing.COMPUTES:
        for path in [PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).rglob("*.py"):
            code = path.read_text()
            for way in ("__init_subclass__", "__subclasses__", "globals()"):
                assert way not in code, path
