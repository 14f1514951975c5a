import re

import pytest

from seqbench.datasets.catalog import DATASETS, find
from seqbench.datasets.download import check
from seqbench.errors import ConfigError

FILES = [
    pytest.param(dataset, file, id=f"{name}-{file.name}")
    for name, dataset in DATASETS.items()
    for file in dataset.files
]


@pytest.mark.parametrize(("dataset", "file"), FILES)
def test_every_file_is_pinned_and_has_mirrors_on_different_hosts(dataset, file):
    for held in filter(None, (file, file.archive)):
        assert re.fullmatch("[0-9a-f]{64}", held.sha256)
        assert held.size > 0
        assert re.fullmatch(r"[\w.-]+", held.name)
    hosts = {re.match(r"https?://([^/]+)/", url)[1] for url in file.urls}
    assert len(hosts) >= 2
    assert len(set(file.urls)) == len(file.urls)
    name = file.archive.name if file.archive else file.name
    packed = (
        dataset.folder in ("tinyshakespeare", "nsmc") or file.members
    )  # under another name at a mirror
    assert packed or all(url.endswith(f"/{name}") for url in file.urls)


@pytest.mark.parametrize(("dataset", "file"), FILES)
def test_sizes_and_checksums_are_those_of_the_real_files(dataset, file, real_data):
    path = real_data / dataset.folder / file.name
    if not path.exists():
        pytest.skip(f"{path} is not at hand")
    assert path.stat().st_size == file.size
    assert check(file, path) == "ok"


def test_checksums_are_named_by_folder_and_file():
    assert find("shakespeare").checksums.keys() == {"tinyshakespeare/input.txt"}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mnits", "did you mean 'mnist'"),
        ("MNIST", "did you mean 'mnist'"),
        ("zzz", "there are mni"),
    ],
)
def test_a_mistyped_name_is_told_what_there_is(name, hint):
    with pytest.raises(ConfigError, match=hint):
        find(name)
