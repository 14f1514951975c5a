"""Hostile texts, and commands that read foreign run folders."""

import yaml

from seqbench.runs.config_file import read_config

ANSI = "\x1b[31m\x1b]0;title\x07\u202e[bold red]evil[/] [link=file:///etc]x[/link]\r\n\x00\x9b2J"
LONG = "x" * 100_000


def changed(folder, change) -> None:
    """Apply a change to the original config of a folder."""
    path, original = folder / "config.yaml", folder.with_name("original.yaml")
    if not original.exists():
        original.write_bytes(path.read_bytes())
    config = read_config(original)
    change(config)
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    path.write_text(yaml.dump(config, Dumper=dumper, sort_keys=False))


def everything(folder):
    """Return the content of all files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FORMATS = ("rich", "markdown", "latex", "html", "csv", "json")


def read_all(harmless, folder, where="status=completed", formats=FORMATS):
    """Run every command that reads records, and return their output."""
    output_dir = folder.parents[3]
    texts = [harmless("table", "--output-dir", output_dir, "-f", form).out for form in formats]
    for words in (
        ["runs", "--output-dir", output_dir],
        ["runs", "--output-dir", output_dir, "--where", where],
        ["show", folder],
        ["clean", "--dry-run", "--failed", "--output-dir", output_dir],
        ["compare", folder, folder],
        ["show", folder.name[:6], "--output-dir", output_dir],
        ["sql", "select * from runs", "--output-dir", output_dir],
        ["sql", "select * from cells", "--output-dir", output_dir, "-f", "csv"],
        ["sql", "select * from events limit 2", "--output-dir", output_dir, "-f", "json"],
        ["report", "--output-dir", output_dir, "-o", output_dir / "page.html"],
    ):
        texts.append(harmless(*words).out)
    return texts


def look(harmless, folder):
    """Run every command that reads the folder of a run."""
    read_all(harmless, folder, formats=["json"])
    for words in (["eval"], ["train", "--resume"], ["generate", "--prompt", "a"]):
        harmless(*words, folder)
