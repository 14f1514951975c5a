"""Test that the list of faults in `scripts/seeded_faults.yaml` fits the code."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_each_fault_can_be_seeded_and_names_tests_that_exist():
    script = runpy.run_path(str(ROOT / "scripts" / "seeded_faults.py"))
    faults = script["read_faults"]()
    assert len(faults) > 40
    for fault in faults:
        assert script["find"](fault, ROOT).read_text(encoding="utf-8")
        assert fault.text != fault.becomes
        assert (ROOT / fault.tests).exists(), fault.name
