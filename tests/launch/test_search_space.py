"""Search spaces: overrides become the distributions that hyperparameters are drawn from."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from small_search import SEARCH
from small_sweep import SMALL, sweep

from seqbench.config.choices import choices_of
from seqbench.errors import ConfigError
from seqbench.launch.sweep import Policy

optuna = pytest.importorskip("optuna")
from seqbench.launch.search_space import dimension  # noqa: E402


@pytest.mark.parametrize(
    ("word", "log"), [("int(interval(4,16))", False), ("int(tag(log,interval(4,16)))", True)]
)
def test_an_interval_of_integers_gives_integers(word, log):
    [override] = OverridesParser.create().parse_overrides([f"model.hidden_size={word}"])
    assert dimension(override) == optuna.distributions.IntDistribution(4, 16, log=log)


@pytest.mark.parametrize(
    ("word", "drawn"),
    [("range(1,6,2)", {1, 3, 5}), ("range(6,3,-1)", {4, 5, 6}), ("range(2,4)", {2, 3})],
)
def test_a_range_is_searched_whole(word, drawn):
    [override] = OverridesParser.create().parse_overrides([f"model.num_layers={word}"])
    found = dimension(override)
    assert set(range(found.low, found.high + 1, found.step)) == drawn


@pytest.mark.parametrize("word", ["range(5,5)", "interval(0.1,0.01)", "tag(log,interval(0,0.01))"])
def test_a_range_without_values_costs_a_line(word):
    [override] = OverridesParser.create().parse_overrides([f"optimizer.lr={word}"])
    with pytest.raises(ConfigError, match="cannot be searched: "):
        dimension(override)


@pytest.mark.parametrize("model", choices_of("model"))
def test_every_model_has_a_space_whose_settings_can_be_built(model, tmp_path):
    assert model in choices_of("search_space")
    words = [word for word in SMALL if not word.startswith("model")]
    drawn = 5 if model == "tcn" else 2
    words += [f"model={model}", f"output_dir={tmp_path}"]
    words += ["search=optuna", f"search.parallel={drawn}"]
    dry = sweep(words, policy=Policy(dry_run=True))
    assert len(dry.jobs) == drawn
    assert len({job.config["optimizer"]["lr"] for job in dry.jobs.values()}) == drawn


def test_a_search_space_in_the_users_folder_is_found(tmp_path):
    for name, line in {"gru": "optimizer.lr: 0.5,0.25", "wide": "trainer.clip: 7,9"}.items():
        (tmp_path / "search_space").mkdir(exist_ok=True)
        (tmp_path / f"search_space/{name}.yaml").write_text(line)
    words = [word for word in SEARCH if "," not in word] + [f"output_dir={tmp_path}"]
    for more, node, key, values in (
        ([], "optimizer", "lr", {0.5, 0.25}),
        (["search.space=wide"], "trainer", "clip", {7, 9}),
    ):
        words = [word for word in words if not word.startswith(f"{node}.{key}=")]
        dry = sweep([*words, *more], str(tmp_path), Policy(dry_run=True))
        assert {job.config[node][key] for job in dry.jobs.values()} <= values


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("search.trials=0", "must be positive"),
        ("search.space=nosuch", "no search space named 'nosuch'"),
        ("search.sampler=best", "search.sampler must be one of tpe, random"),
        ("search.trial=3", "did you mean 'search.trials'"),
    ],
)
def test_settings_that_cannot_be_cost_a_line(tmp_path, word, error):
    with pytest.raises(ConfigError, match=error):
        sweep([*SEARCH, f"output_dir={tmp_path}", word])


def test_there_must_be_something_to_search(tmp_path):
    with pytest.raises(ConfigError, match="nothing to search"):
        sweep([*SMALL, f"output_dir={tmp_path}", "search=optuna", "search.space=none"])
