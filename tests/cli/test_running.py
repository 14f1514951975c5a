import pytest

from seqbench.cli.running import running_table
from seqbench.launch.progress import Progress
from seqbench.runs.run import Run


@pytest.mark.parametrize(
    ("live", "columns"), [(True, ["step", "loss", "valid", "speed", "left"]), (False, ["step"])]
)
def test_a_table_that_is_drawn_again_keeps_its_empty_columns(tmp_path, live, columns):
    begun = Progress(Run(tmp_path), step=5, total_steps=10)
    table = running_table([("adding tcn", begun)], 120, live=live)
    assert [column.header for column in table.columns] == ["running", *columns]
