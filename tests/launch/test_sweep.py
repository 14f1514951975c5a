import itertools
import json
import random
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sweep import SMALL, Here, Seen, history, kept, sweep

from seqbench.config.compose import Composer
from seqbench.errors import ConfigError
from seqbench.launch import sweep as sweep_module
from seqbench.launch.configs import compose_all
from seqbench.launch.job import Ending, train_job
from seqbench.launch.sweep import Policy, Sweep
from seqbench.runs import lock


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    monkeypatch.setattr(sweep_module, "LOOK", 0.05)


@pytest.fixture
def asked(tmp_path):
    """Return a function that sweeps over seeds in this process."""

    def make(*seeds, engine=Here, view=None, **policy):
        words = [[*SMALL, f"output_dir={tmp_path}", f"seed={seed}"] for seed in seeds]
        composer = Composer()
        made = Sweep(["typed"], composer, Policy(**policy), view or Seen())
        made.launch(words, engine)
        return made

    return make


def hows(made):
    return [ending.how for ending in made.endings.values()]


def test_given_again_it_trains_what_is_missing_and_nothing_twice(asked, tmp_path):
    first = asked(0, 1)
    assert len(first.view.trained) == 2
    again = asked(0, 1)
    assert again.view.trained == []
    assert hows(again) == ["completed"] * 2
    wider = asked(0, 1, 2)
    assert wider.view.trained == ["adding tcn seed=2"]
    assert [history(run) for run in tmp_path.glob("runs/*/*/*")] == [["started", "completed"]] * 3


def test_the_same_run_asked_for_twice_is_one_job(asked):
    with_twins = asked(0, 1, 0)
    assert sorted(with_twins.view.trained) == ["adding tcn seed=0", "adding tcn seed=1"]
    assert len(with_twins.jobs) == 2


def test_a_launcher_is_told_of_every_job_in_order(tmp_path):
    composer = Composer()
    made = Sweep([], composer, Policy())
    words = [[*SMALL, f"output_dir={tmp_path}", f"seed={seed}"] for seed in (3, 1, 3)]
    endings = made.launch(words, Here)
    scores = [ending.score for ending in endings]
    assert scores[0] == scores[2] != scores[1]


def test_a_wrong_job_is_found_before_the_first_is_started(tmp_path):
    composer = Composer()
    made = Sweep([], composer, Policy())
    right = [*SMALL, f"output_dir={tmp_path}"]
    wrong = [*right, "model.kernel_sice=3"]
    with pytest.raises(ConfigError, match=r"did you mean 'model.kernel_size'\?\) \(in the job"):
        made.launch([right, wrong], Here)
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_does_nothing(asked, tmp_path):
    asked(0)
    dry = asked(0, 1, engine=None, dry_run=True)
    assert hows(dry) == ["completed"]
    assert [job.state() for job in dry.jobs.values()] == ["completed", "new"]
    assert len(list(tmp_path.glob("runs/*/*/*"))) == 1


class Failing(Here):
    """Says that every job failed."""

    def ended(self, seconds):
        while self.jobs:
            yield self.jobs.pop(0), Ending("failed", "by order")


def test_one_failure_leaves_the_others_alone_unless_asked(asked):
    assert hows(asked(0, 1, 2, engine=Failing)) == ["failed"] * 3
    fast = asked(0, 1, 2, engine=Failing, fail_fast=True)
    assert hows(fast) == ["failed"]
    assert fast.stopped == "a run failed"


def test_when_its_time_is_up_it_starts_no_other(asked):
    late = asked(0, 1, seconds=0.0)
    assert late.stopped == "time limit reached"
    assert hows(late) == []


def test_failed_runs_are_trained_again_when_asked(asked, tmp_path):
    [job] = asked(0).jobs.values()
    record = json.loads(job.run.record_path.read_text())
    failed = record | {"status": "failed", "error": "once", "score": None, "metrics": {}}
    job.run.record_path.write_text(json.dumps(failed))
    again = asked(0)
    assert next(iter(again.endings.values())) == Ending("failed", "once", job.run.log_path)
    assert asked(0, retry=True).view.trained == ["adding tcn seed=0"]
    assert job.run.record.status == "completed"


def test_finished_runs_are_trained_again_when_forced(asked):
    asked(0)
    assert asked(0, force=True).view.trained == ["adding tcn seed=0"]


def test_a_damaged_record_is_one_failure(asked):
    [job] = asked(0).jobs.values()
    job.run.record_path.write_text("{")
    both = asked(0, 1)
    assert hows(both) == ["failed", "completed"]
    assert "--force" in both.endings[job.run.folder].reason
    assert hows(asked(0, 1, force=True)) == ["completed"] * 2


def test_a_run_that_another_process_holds_is_left_to_it(asked, tmp_path):
    """The run is trained once, the others go on meanwhile, and its result counts."""
    [job] = asked(0, engine=None, dry_run=True).jobs.values()
    job.run.checkpoints.mkdir(parents=True)
    begun = threading.Event()

    class Watching(Seen):
        def ended(self, job, ending, found):
            super().ended(job, ending, found)
            begun.set()

    def other():
        with lock.held(job.run.folder, "it"):
            assert begun.wait(60)
        train_job(job)

    thread = threading.Thread(target=other)
    with lock.held(job.run.folder, "it"):
        pass
    thread.start()
    while not lock.is_held(job.run.folder):
        pass
    view = Watching()
    asked(0, 1, view=view)
    thread.join()
    # Its lock is free for a moment before the other process takes it: either may have trained it.
    assert view.ends[0] == ("adding tcn seed=1", "completed", False)
    assert view.ends[1][:2] == ("adding tcn seed=0", "completed")
    assert history(job.run.folder) == ["started", "completed"]


def test_what_was_asked_for_is_kept(asked, tmp_path):
    made = asked(0, 1)
    [path] = tmp_path.glob("sweeps/*/sweep.jsonl")
    assert path.parent.name == made.id
    [line] = map(json.loads, path.open())
    assert line["overrides"] == ["typed"]
    assert sorted(line["jobs"]) == sorted(folder.name for folder in made.jobs)
    asked(0, 1)
    assert len(path.read_text().splitlines()) == 1, "nothing was done, nothing is noted"


def test_hydras_own_sweeper_works_on_our_launcher(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, f"output_dir={tmp_path}", "seed=0,1", "hydra/sweeper=basic"]
    assert hows(sweep(words)) == ["completed"] * 2


def test_the_whole_grammar_of_hydras_sweeps(tmp_path):
    words = [
        *SMALL,
        f"output_dir={tmp_path}",
        "seed=range(2)",
        "model=glob(*,exclude=[t*,rnn,ll*,?linear])",
    ]
    words += ["model.dropout=choice(0.0,0.1)", "optimizer=sgd,adam", "optimizer.lr=1e-3"]
    words = [word for word in words if not word.startswith(("model.channels", "model.kernel"))]
    dry = sweep(words, policy=Policy(dry_run=True))
    found = {
        (
            job.config["seed"],
            job.config["choices"]["model"],
            job.config["model"]["dropout"],
            job.config["optimizer"]["_target_"].rpartition(".")[2],
        )
        for job in dry.jobs.values()
    }
    assert found == set(
        itertools.product((0, 1), ("lstm", "gru"), (0.0, 0.1), ("SGD", "Adam")),
    )


def test_texts_with_any_name_are_swept_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["my poems.txt", "한국어.txt", "a(b).txt", "c,d.txt"]
    for name in names:
        Path(name).write_text(name)
    words = ["model=tcn", "task=char_file", "task.path=my poems.txt,한국어.txt,a(b).txt,'c,d.txt'"]
    dry = sweep(words, policy=Policy(dry_run=True))
    assert [job.config["task"]["path"] for job in dry.jobs.values()] == [
        str(tmp_path / name) for name in names
    ]


def test_jobs_that_differ_in_the_seed_are_composed_twice(tmp_path, monkeypatch):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "by_seed.yaml").write_text("defaults: [adding]\ndata_seed: ${seed}\n")
    composed = []
    compose = Composer.compose
    monkeypatch.setattr(
        Composer, "compose", lambda self, words: composed.append(words) or compose(self, words)
    )
    words = [["model=gru", "task=adding", f"seed={seed}", "threads=1"] for seed in (4, 4, 5, 6, 7)]
    depends = [["model=gru", "task=by_seed", "recipe=none", f"seed={seed}"] for seed in (4, 5, 6)]
    composer = Composer(str(tmp_path))
    configs = compose_all(composer, words)
    assert [config["seed"] for config in configs] == [4, 4, 5, 6, 7]
    assert len(composed) == 3
    assert configs[-1] == compose(composer, words[-1])
    seeds = [config["task"]["data_seed"] for config in compose_all(composer, depends)]
    assert seeds == [4, 5, 6]


class Moody(Here):
    """An engine whose jobs end in any way, most often without having been trained."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.dice = dice

    def room(self):
        return 3 - len(self.jobs)

    def ended(self, seconds):
        self.dice.shuffle(self.jobs)
        for job in self.jobs[: self.dice.randint(0, 3)]:
            self.jobs.remove(job)
            how = self.dice.choice(["killed", "held", "interrupted", "completed"])
            yield job, train_job(job) if how == "completed" else Ending(how, "by the dice")


@settings(max_examples=3)
@given(st.integers(0, 10**6))
def test_whatever_happens_each_run_is_trained_once_in_the_end(tmp_path_factory, seed):
    folder, dice = tmp_path_factory.mktemp("moody"), random.Random(seed)
    words = [[*SMALL, f"output_dir={folder}", f"seed={seed}"] for seed in range(4)]
    trained = []
    composer = Composer()
    jobs = Sweep([], composer, Policy(), Seen()).compose(words)
    for _ in range(30):
        made = Sweep([], composer, Policy(), Seen())
        made.run(jobs, lambda: Moody(dice))
        trained += made.view.trained
        assert len(made.endings) == 4, "every job comes to an end"
    assert sorted(trained) == [f"adding tcn seed={seed}" for seed in range(4)]
    assert len(kept(folder)) == 4
