import importlib
import sys

import pytest

from seqbench.runs import code_hash
from seqbench.runs.code_hash import code_of, user_code_hash

MODEL = '''"""A model."""
from torch import nn

import layers
from layers import Scale


class Model(nn.Module):
    """Scale."""

    def __init__(self, spec):
        super().__init__()
        self.scale = Scale()  # a comment

    def forward(self, x):
        from lazily import shift

        return shift(self.scale(x)), f"{x!r:>{3}}"
'''
LAYERS = "import other\nclass Scale:\n    factor = 2\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Provide a folder with a custom model in three modules, first on the path."""
    files = {"mine": MODEL, "layers": LAYERS, "lazily": "shift = abs\n", "other": "a = 1\n"}
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "unused.py").write_text("a = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    forget(*files, "package")


def forget(*names):
    for name in [m for m in sys.modules if m.partition(".")[0] in names]:
        del sys.modules[name]
    importlib.invalidate_caches()
    user_code_hash.cache_clear()


def again(target="mine.Model"):
    user_code_hash.cache_clear()
    return user_code_hash(target)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a comment", "another comment"),
        ('"""Scale."""', '"""Scale the input.\n\n    By a factor.\n    """'),
        ('"""A model."""', ""),
        ("self.scale = Scale()", "self.scale = (\n            Scale()\n        )"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(project, old, new):
    before = again()
    edit(project / "mine.py", old, new)
    assert again() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("mine", "shift(self.scale(x))", "self.scale(shift(x))"),
        ("mine", ">{3}", ">{4}"),
        ("layers", "factor = 2", "factor = 2.0"),
        ("lazily", "abs", "round"),  # imported in a function
        ("other", "a = 1", 'a = "1"'),  # imported by an imported module
    ],
)
def test_code_counts_in_all_modules_that_are_imported(project, file, old, new):
    before = again()
    edit(project / f"{file}.py", old, new)
    assert again() != before


def test_a_module_that_is_not_imported_does_not_count(project):
    before = again()
    edit(project / "unused.py", "a = 1", "a = 2")
    assert again() == before


def test_modules_of_a_package_count_wherever_it_is_installed(project, monkeypatch):
    package = project / "package"
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").write_text("width = 1\n")
    (package / "model.py").write_text("from .parts import block\nclass Model: pass\n")
    (package / "parts" / "__init__.py").write_text("")
    (package / "parts" / "block.py").write_text("depth = 1\ndef never(): from ... import beyond\n")
    monkeypatch.setattr(code_hash, "_is_installed", lambda path: True)
    hashes = [again("package.model.Model")]
    for file, text in (("__init__.py", "width = 2\n"), ("parts/block.py", "depth = 2\n")):
        (package / file).write_text(text)
        hashes.append(again("package.model.Model"))
    assert len(set(hashes)) == 3


def test_installed_libraries_and_seqbench_do_not_count(project):
    names = dict(code_hash._modules("mine", project / "mine.py"))
    assert names.keys() == {"mine", "layers", "lazily", "other"}
    edit(project / "layers.py", "import other", "import pooch, seqbench.spec, json")
    assert dict(code_hash._modules("mine", project / "mine.py")).keys() == names.keys() - {"other"}


@pytest.mark.parametrize("target", ["seqbench.models.tcn.TCN", "torch.optim.Adam"])
def test_there_is_no_hash_of_what_is_not_the_users(target):
    assert user_code_hash(target) is None


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("int a; // one\n", "int a;\n", True),
        ("int a; /* one\n * more */ int b;", "int a;\n\n  int b;", True),
        ('f("// not a comment");', 'f("");', False),
        ('f("a  b");', 'f("a b");', False),
        ('f( "a" );  g();', 'f("a");\ng();', True),
        ('f(R"(" // one)");', 'f(R"(" // two)");', False),
        ('f(R"x(")" // one)x"); // three', 'f(R"x(")" // one)x");', True),
        ("f('\"'); // it's", "f('\"');", True),
        ("f('\"', 1); g('\"');", "f('\"', 2); g('\"');", False),
        ("a = 1'000; // it's one", "a = 1'000; // it's two", True),
        ('f("a \\" // b", 1);', 'f("a \\" // b", 2);', False),
        ("a = b / c;", "a = b * c;", False),
    ],
)
def test_comments_of_cpp_do_not_count(tmp_path, before, after, same):
    for name, text in (("before.cpp", before), ("after.cpp", after)):
        (tmp_path / name).write_text(text)
    assert (code_of(tmp_path / "before.cpp") == code_of(tmp_path / "after.cpp")) == same
