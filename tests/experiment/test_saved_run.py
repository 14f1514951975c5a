"""A trained model is loaded from its folder: the same scores, and text from a prompt."""

import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from seqbench.cli.main import app
from seqbench.config.compose import compose
from seqbench.errors import ConfigError, DataError, RunError
from seqbench.experiment import run
from seqbench.experiment.saved_run import SavedRun
from seqbench.runs.run import Run

SIZES = {
    **{name: ["model.hidden_size=16"] for name in ("lstm", "gru", "rnn")},
    "tcn": ["model.channels=[16,16]"],
    "llama": ["model.dim=16", "model.hidden_dim=24", "model.num_heads=2", "model.num_layers=2"],
    "transformer_xl": ["model.dim=16", "model.num_heads=2", "model.num_layers=2"],
    "tcn_attention": ["model.channels=[16,16]", "model.kernel_size=3"],
}
TEXT = "the cat sat on the mat and the dog sat on the log. " * 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """Train a small model on a text, once for each model."""
    base = tmp_path_factory.mktemp("runs")
    (base / "my.txt").write_text(TEXT)
    made: dict[str, tuple[Path, object]] = {}

    def make(model: str) -> tuple[Path, object]:
        if model not in made:
            config = compose(
                [
                    *(f"model={model}", *SIZES[model], "recipe=none"),
                    "task=char_file",
                    f"task.path={base / 'my.txt'}",
                    "budget=smoke",
                    "trainer.steps=40",
                    "trainer.batch_size=8",
                    "threads=1",
                    f"output_dir={base}",
                ]
            )
            record = run(config)
            made[model] = (Run.of(config).folder, record)
        return made[model]

    return make


@pytest.mark.parametrize("model", ["tcn", "lstm", "llama", "transformer_xl"])
def test_scores_are_those_of_the_record(folder, model: str) -> None:
    path, record = folder(model)
    saved = SavedRun(path)
    assert saved.evaluate("test") == record.metrics["test"]
    assert saved.evaluate("valid") == record.metrics["valid"]


@pytest.mark.parametrize("model", SIZES)
def test_generates_what_a_reading_of_the_whole_text_says(folder, model: str) -> None:
    saved = SavedRun(folder(model)[0])
    prompt = "the cat"
    written = "".join(saved.generate(prompt, length=12, temperature=0, seed=0))
    assert len(written) == 12
    # Greedy, one pass over prompt and answer must give the same characters as step by step.
    ids = torch.from_numpy(saved.task.vocabulary.encode(prompt + written)).long()[None]
    with torch.no_grad():
        outputs, _ = saved.model(ids)
    greedy = outputs[0, len(prompt) - 1 : -1].argmax(-1)
    assert saved.task.vocabulary.decode(greedy.tolist()) == written


@pytest.mark.parametrize("carry_state", [False, True])
def test_a_state_is_carried_if_it_is_in_training(folder, carry_state) -> None:
    saved = SavedRun(folder("llama")[0])
    saved.model.carry_state = carry_state
    read = []
    saved.model.register_forward_pre_hook(lambda model, inputs: read.append(inputs[0].shape[1]))
    list(saved.generate("the ", saved.task.length, temperature=1, seed=0))
    assert read[1] == (1 if carry_state else 5)
    assert max(read) == (4 if carry_state else saved.task.length)


def test_a_seed_fixes_the_sample(folder) -> None:
    saved = SavedRun(folder("lstm")[0])
    first, second, other = (
        "".join(saved.generate("the ", 40, temperature=1.5, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_only_characters_are_written(folder) -> None:
    saved = SavedRun(folder("lstm")[0])
    # So hot that each id is as likely as any other.
    written = "".join(saved.generate("the ", 300, temperature=1e6, seed=0))
    assert set(written) == set(TEXT)


def test_a_prompt_must_be_readable(folder) -> None:
    saved = SavedRun(folder("lstm")[0])
    for prompt in ("", "ЖЖ"):
        with pytest.raises(ConfigError, match="the prompt needs"):
            next(saved.generate(prompt, 1, temperature=1, seed=0))


def test_generate_says_what_of_a_prompt_is_unknown(folder) -> None:
    place = folder("lstm")[0]
    known, partly = (
        CliRunner().invoke(app, ["generate", str(place), "--prompt", prompt, "--length", "3"])
        for prompt in ("the ", "Жthe Ж")
    )
    assert known.stderr == ""
    assert "note: 2 of the prompt's characters are unknown to the model" in partly.stderr
    assert partly.stdout.startswith("Жthe Ж")


def test_text_is_generated_without_the_training_text(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 400)
    words = ["model=gru", "model.hidden_size=8", "task=char_file", f"task.path={text}"]
    config = compose([*words, "trainer.steps=4", "threads=1", f"output_dir={tmp_path}"])
    run(config)
    text.unlink()
    saved = SavedRun(Run.of(config).folder)
    for temperature in (0, 1e-38, 1.0):
        written = "".join(saved.generate("the ", 20, temperature=temperature, seed=0))
        assert len(written) == 20
        assert set(written) <= set("the cat sat on the mat. ")
    with pytest.raises(DataError, match=r"text\.txt is not there: .* add task\.path=NEW"):
        saved.evaluate("test")


def test_a_prompt_is_read_as_a_text_file_is(folder) -> None:
    words = ["--length", "3", "--temperature", "0"]
    plain, other = (
        CliRunner().invoke(app, ["generate", str(folder("lstm")[0]), "--prompt", prompt, *words])
        for prompt in ("the\nthe ", "\ufeffthe\r\nthe ")
    )
    assert plain.exit_code == 0
    assert (other.stdout, other.stderr) == (plain.stdout, plain.stderr)


def test_a_prompt_may_come_from_a_file(folder, tmp_path: Path) -> None:
    words = ["generate", str(folder("lstm")[0]), "--length", "3", "--top-k", "2"]
    content = "\ufeffthe\r\nthe ".encode()
    (tmp_path / "prompt.txt").write_bytes(content)
    typed = CliRunner().invoke(app, [*words, "--prompt", "the\nthe "])
    assert typed.exit_code == 0
    for file, given in ((str(tmp_path / "prompt.txt"), None), ("-", content)):
        read = CliRunner().invoke(app, [*words, "--prompt-file", file], input=given)
        assert (read.stdout, read.stderr) == (typed.stdout, typed.stderr)


@pytest.mark.parametrize(
    ("words", "given", "kind", "said"),
    [
        ("", b"", ConfigError, "expected --prompt TEXT or --prompt-file FILE, got none"),
        ("--prompt a --prompt-file -", b"", ConfigError, "--prompt-file FILE, got both"),
        ("--prompt-file missing.txt", b"", DataError, "missing.txt is not there"),
        ("--prompt-file -", b"", DataError, "the prompt is empty"),
        ("--prompt-file -", b"a\xff", DataError, "the prompt is not UTF-8 text: byte 0xff at"),
        ("--prompt-file -", b"a\x00", DataError, "the prompt is not text: byte 0x00 at offset 1"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_one_line(folder, words, given, kind, said) -> None:
    command = ["generate", str(folder("lstm")[0]), *words.split()]
    error = CliRunner().invoke(app, command, input=given).exception
    assert isinstance(error, kind)
    assert said in str(error)


def test_only_the_likeliest_characters_are_written(folder) -> None:
    saved = SavedRun(folder("lstm")[0])
    greedy, one, all_, every, two = (
        "".join(saved.generate("the ", 60, temperature, seed=0, top_k=k))
        for temperature, k in ((0, None), (1e6, 1), (1e6, None), (1e6, 999), (1e6, 2))
    )
    assert one == greedy
    assert every == all_
    assert two not in (one, all_)


def test_generate_needs_a_language_model(tmp_path: Path) -> None:
    config = compose(
        ["model=gru", "task=adding", "budget=smoke", "threads=1", f"output_dir={tmp_path}"]
    )
    run(config)
    with pytest.raises(ConfigError, match="language model"):
        next(SavedRun(Run.of(config).folder).generate("a", 1, temperature=1, seed=0))


def test_damaged_weights_are_refused(folder, tmp_path: Path) -> None:
    path, _ = folder("lstm")
    copy = tmp_path / "copy"
    (copy / "checkpoints").mkdir(parents=True)
    (copy / "config.yaml").write_bytes((path / "config.yaml").read_bytes())
    content = bytearray((path / "checkpoints/best.safetensors").read_bytes())
    content[-3] ^= 1
    (copy / "checkpoints/best.safetensors").write_bytes(content)
    with pytest.raises(RunError, match="checksum"):
        SavedRun(copy)


def test_code_that_is_not_trusted_is_not_built(folder, tmp_path: Path) -> None:
    path, _ = folder("lstm")
    text = (path / "config.yaml").read_text().replace("seqbench.models.rnn.LSTM", "os.system")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="--trust"):
        SavedRun(tmp_path)


def test_a_run_that_kept_no_weights_says_so(folder, tmp_path: Path) -> None:
    shutil.copytree(folder("tcn")[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(RunError, match="no weights: it did not come to its first evaluation"):
        SavedRun(tmp_path / "run")
