"""The story's steps: how long each takes, beside the limit that the demonstration promises (two minutes in all).

Run: ``python benchmarks/story.py [rounds]``. Each round is a whole ``rcp-gateway demo --once`` in a directory of its
own: four starts of the gateway, every wire, real deliveries. The median of the rounds is told; the time of a step runs
from the step before, so the first step of an act includes the start of the gateway. Figures depend on the machine; the
limit does not.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT_S = 120.0


def steps_of_a_run() -> list[dict[str, object]]:
    """Play the story once; return its steps."""
    with tempfile.TemporaryDirectory(prefix="rcp-story-") as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RCP_")}
        played = subprocess.run(
            [sys.executable, "-m", "gateway", "demo", "--once"],
            env=environment | {"RCP_DATA_DIR": folder},
            capture_output=True,
            text=True,
            check=False,
        )
        if played.returncode:
            sys.exit(played.stdout[-2000:] + played.stderr[-2000:])
        return json.loads((Path(folder) / "demo" / "story.json").read_text(encoding="utf-8"))


def main() -> int:
    """Print the table; 1 when the story takes longer than its limit."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    runs = [steps_of_a_run() for _ in range(rounds)]
    print(f"{'act':>3}  {'wire':<9} {'s':>7}  step")
    for steps in zip(*runs, strict=True):
        seconds = statistics.median(float(step["elapsed_s"]) for step in steps)
        print(f"{steps[0]['act']:>3}  {steps[0]['wire']:<9} {seconds:7.2f}  {steps[0]['name']}")
    total = statistics.median(sum(float(step["elapsed_s"]) for step in steps) for steps in runs)
    print(f"{'':>3}  {'':<9} {total:7.2f}  in all (limit {LIMIT_S:.0f} s), median of {rounds} rounds")
    return int(total > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
