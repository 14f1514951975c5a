import pytest

from seqbench.config.compose import Composer
from seqbench.results.recipe import amount_differences, differences
from seqbench.runs.identity import without_environment


@pytest.fixture(scope="module")
def composer():
    return Composer()


def test_differences_are_those_of_the_result_only(composer):
    config = composer.compose(["model=tcn", "device=cpu", "trainer.log_every=1", "threads=1"])
    assert differences(without_environment(config)) == []
    config = composer.compose(["model=tcn", "model.kernel_size=3"])
    assert [tuple(found) for found in differences(config)] == [("model.kernel_size", 8, 3)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ""),
        (["budget=quick"], ""),
        (["trainer.epochs=10"], ""),
        (["trainer.epochs=10.0"], ""),
        (
            ["trainer.stop_when_solved=true"],
            "stop_when_solved=true instead of stop_when_solved=false",
        ),
        (["task=smnist", "task.eval_size=64"], "eval_size=64 instead of eval_size=all"),
        (
            ["task=smnist", "protocol=paper", "task.valid_size=50000"],
            "valid_size=50000 instead of valid_size=0",
        ),
        (["trainer.epochs=3"], "epochs=3 instead of epochs=10"),
        (["trainer.epochs=0.5", "task=copy"], "epochs=0.5 instead of epochs=50"),
        (["trainer.steps=500"], "steps=500 instead of epochs=10"),
        (["trainer.steps=500", "budget=quick"], "steps=500 instead of steps=5000"),
        (["task.train_size=99"], "train_size=99 instead of train_size=50000"),
        (["task=char_ptb", "task.train_size=99"], "train_size=99 instead of train_size=all"),
        (
            ["trainer.epochs=3", "task.train_size=99"],
            "train_size=99 instead of train_size=50000, epochs=3 instead of epochs=10",
        ),
        (["optimizer.lr=1", "trainer.batch_size=8", "seed=3"], ""),
    ],
)
def test_a_training_cut_short_or_drawn_out_is_told(composer, words, said):
    found = amount_differences(without_environment(composer.compose(words)))
    assert ", ".join(found.values()) == said


@pytest.mark.parametrize(("epochs", "differs"), [(10, False), (20, False), (5, True)])
def test_the_amount_of_another_protocol_is_as_good_as_that_of_the_recipe(composer, epochs, differs):
    # 10 epochs with its recipe, 20 in the released code.
    config = composer.compose(["task=pmnist", "model=tcn", f"trainer.epochs={epochs}"])
    said = amount_differences(without_environment(config), "code").values()
    assert list(said) == [f"epochs={epochs} instead of epochs=10"] * differs


@pytest.mark.parametrize("trainer", [None, [], {}, {"steps": "many"}, {"epochs": None}, "x"])
def test_of_what_a_stranger_wrote_no_amount_is_told(composer, trainer):
    config = without_environment(composer.compose([])) | {"trainer": trainer, "task": trainer}
    assert amount_differences(config) == {}
