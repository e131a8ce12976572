"""Random faults on small studies: kills, full disks, mutated inputs and mutated files of earlier runs.

    python bench/faults.py --quick
    python bench/faults.py --kinds kills,state --seed 3 --count 40 --json 3.json
    python bench/faults.py --join 3.json 4.json --json faults.json

* kills: a rank or the launcher is killed, or gets TERM or USR1, at a random moment of a run on 2 or 3 ranks; then
  --resume must give the bytes of an undisturbed run.
* disk: the output lies on a tmpfs that is too small, or that something else fills while the run works; the run must end
  with one sentence and exit code 5, and --resume must give the same bytes once there is room.
* inputs: bytes or lines of an input file are changed; the run may say so or take it, but must not crash or hang.
* state: bytes of a file that a run reads again, its own to --resume or an earlier command's, are changed; the run must
  refuse it or give the same numbers.

Each kind makes ``--count`` runs. ``--seed S`` chooses other moments, files and bytes. The JSON has how many runs of
each kind there were, and how many ended well or badly; ``bad`` lists what ended badly, and how. ``--join`` adds up
the JSON of several such runs, which have seeds of their own.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

from common import BenchError, finish, guarded, make_parser, print_table
from faults_kinds import KINDS, Trial
from faults_study import make_study

FULL = {"kills": 100, "disk": 60, "inputs": 300, "state": 100}
QUICK = {"kills": 3, "disk": 6, "inputs": 30, "state": 12}


def parse() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--kinds", default=",".join(FULL), metavar="LIST", help=f"kinds of faults ({','.join(FULL)})")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of all random choices (1)")
    parser.add_argument("--count", type=int, metavar="N", help="runs of each kind (100, 60, 300 and 100)")
    parser.add_argument(
        "--join", type=Path, nargs="+", metavar="JSON", help="make no runs: add up those of these files"
    )
    options = parser.parse_args()
    options.kinds = options.kinds.split(",")
    for kind in options.kinds:
        if kind not in FULL:
            raise BenchError(f"--kinds must be of {', '.join(FULL)}, not {kind}")
    return options


def run_kind(kind: str, count: int, seed: int, folder: Path) -> list[Trial]:
    """``count`` trials; fewer where they cannot be made on this machine, which is said."""
    trials: list[Trial] = []
    make = KINDS[kind](folder)
    for k in range(count):
        trial = make(random.Random(f"{kind} {seed} {k}"))
        trials.append(trial)
        if trial.fault:
            print(f"{kind} {seed} {k}: {trial.what}: {trial.fault}\n{trial.said[-1500:]}", flush=True)
    return trials


def joined(paths: list[Path]) -> dict[str, Any]:
    """What the files of ``--json`` say together: numbers are added, and the seeds are listed."""
    seeds: set[int] = set()
    counts: collections.Counter[str] = collections.Counter()
    tables: dict[str, collections.Counter[str]] = {}
    for path in paths:
        piece = json.loads(path.read_text(encoding="utf-8"))
        seeds.update(piece.pop("seeds") if "seeds" in piece else [piece.pop("seed")])  # joined before, or not
        for name, value in piece.items():
            if isinstance(value, dict):
                tables.setdefault(name, collections.Counter()).update(value)
            else:
                counts[name] += value
    return {"seeds": sorted(seeds), **counts, **{name: dict(sorted(table.items())) for name, table in tables.items()}}


def main() -> None:
    options = parse()
    if options.join:
        finish(joined(options.join), options.json)
        return
    study = options.scratch / "faults" / "study"
    make_study(study)
    found: dict[str, Any] = {"seed": options.seed}
    bad: collections.Counter[str] = collections.Counter()
    rows = []
    for kind in options.kinds:
        begin = time.perf_counter()
        folder = options.scratch / "faults" / kind
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(study, folder)
        count = options.count or (QUICK if options.quick else FULL)[kind]
        try:
            trials = run_kind(kind, count, options.seed, folder)
        except PermissionError as error:
            print(f"{kind}: left out: {error}")
            continue
        good = sum(not trial.fault for trial in trials)
        bad.update(f"{kind}: {trial.what}: {trial.fault}" for trial in trials if trial.fault)
        rows.append((kind, len(trials), good, time.perf_counter() - begin))
        found |= {
            "kills": {"kills": len(trials), "kills_equal": good},
            "disk": {"disk_full": len(trials), "disk_full_clean": good},
            "inputs": {"mutated": len(trials), "mutated_bad": len(trials) - good},
            "state": {"state": len(trials), "state_bad": len(trials) - good},
        }[kind]
        ends = collections.Counter(trial.ending for trial in trials)
        found[f"{kind}_endings"] = dict(sorted(ends.items()))
    print_table(["kind", "runs", "ended well", "seconds"], rows)
    finish(found | {"bad": dict(bad)}, options.json)


if __name__ == "__main__":
    guarded(main)
