"""Kill the jobs and the launcher of a sweep for a minute, and check that no run is lost.

    python scripts/sweep_storm.py

A sweep of 40 runs is done undisturbed. In another output folder the same command is given while a
random process of it is killed (SIGKILL) every second, and twice the launcher itself; given again
whenever it ends, and at last left in peace. Then there must be 40 records, each written once, each
with the bits of the undisturbed sweep's but for what is measured of the machine, and no process
left behind. Exit code 0: all of that is true.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

SWEEP = [
    *("model=tcn,lstm,gru,llama", "task=adding,copy", "seed=range(5)"),
    *("budget=smoke", "trainer.steps=150", "trainer.eval_every=50", "trainer.checkpoint_every=10"),
]
# Every process of the sweep has this in its environment, and hands it on.
MARK = "SEQBENCH_STORM"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the storm lasts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", help="another sweep, as `seqbench sweep` takes it")
    arguments = parser.parse_args()
    words = arguments.overrides or SWEEP
    with tempfile.TemporaryDirectory() as folder:
        calm, stormy = Path(folder) / "calm", Path(folder) / "stormy"
        start(words, calm).wait()
        counts = storm(words, stormy, arguments.seconds, random.Random(arguments.seed))
        faults = differences(calm, stormy)
        print(", ".join(f"{name} {count}" for name, count in counts.items()))
        print(f"{len(records(calm))} runs, of which lost or not the same: {len(faults)}")
        for fault in faults:
            print(f"  {fault}")
    return 1 if faults or counts["orphans"] else 0


def start(words: list[str], output_dir: Path) -> "subprocess.Popen[bytes]":
    """Give the command, its processes marked by the folder that they write to."""
    command = [sys.executable, "-m", "seqbench", "sweep", *words, f"output_dir={output_dir}"]
    return subprocess.Popen(
        command,
        env=os.environ | {MARK: str(output_dir)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def storm(words: list[str], folder: Path, seconds: float, dice: random.Random) -> Counter[str]:
    """Kill parts of a sweep until the time is up, then let it end; return what was killed."""
    counts = Counter({"jobs killed": 0, "launchers killed": 0, "commands": 1, "orphans": 0})
    launcher = start(words, folder)
    end = time.monotonic() + seconds
    # The launcher is killed a third and two thirds of the way.
    doomed = [end - seconds / 3, end - 2 * seconds / 3]
    while time.monotonic() < end:
        time.sleep(1)
        if doomed and time.monotonic() > doomed[-1]:
            doomed.pop()
            launcher.kill()
            counts["launchers killed"] += launcher.wait() == -signal.SIGKILL
        elif victims := [pid for pid in marked(folder) if pid != launcher.pid]:
            os.kill(dice.choice(victims), signal.SIGKILL)
            counts["jobs killed"] += 1
        if launcher.poll() is not None:
            launcher = start(words, folder)
            counts["commands"] += 1
    launcher.wait()
    while start(words, folder).wait():
        counts["commands"] += 1
        if counts["commands"] > 1000:
            break
    time.sleep(2)
    counts["orphans"] = len(marked(folder))
    return counts


def marked(folder: Path) -> list[int]:
    """Return the ids of the live processes of a sweep."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            alive = "State:\tZ" not in (process / "status").read_text()
            if alive and f"{MARK}={folder}\0".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:  # it ended while we looked
            continue
    return found


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a sweep by run id, without measurements of the machine."""
    found = {}
    for path in folder.glob("runs/*/*/*/record.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        del record["measured"]
        found[path.parent.name] = record
    return found


def differences(calm: Path, stormy: Path) -> list[str]:
    """Return the faults of the second sweep, one line each."""
    ours, theirs = records(calm), records(stormy)
    faults = [f"{name} is not there" for name in ours.keys() - theirs.keys()]
    faults += [f"{name} is one too many" for name in theirs.keys() - ours.keys()]
    for name in ours.keys() & theirs.keys():
        [one], [other] = calm.glob(f"runs/*/*/{name}"), stormy.glob(f"runs/*/*/{name}")
        if ours[name] != theirs[name]:
            faults.append(f"{name} has another record")
        if (one / "events.jsonl").read_bytes() != (other / "events.jsonl").read_bytes():
            faults.append(f"{name} has other events")
        history = (other / "history.jsonl").read_text(encoding="utf-8").splitlines()
        if sum(json.loads(line)["event"] == "completed" for line in history) != 1:
            faults.append(f"{name} was not completed exactly once")
    return faults


if __name__ == "__main__":
    sys.exit(main())
