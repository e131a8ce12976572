"""Every command on 1 and 2 ranks beside the plan that --dry-run made of it, from rates that doctor has just measured.

Of each run those phases are compared that make up 90% of the time in its timing table; ``worst_ratio`` is the largest
of predicted over measured and its inverse among them. A phase without a prediction counts as UNKNOWN.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from common import finish, guarded, launched, make_parser, mpirun, numbers, print_table

if TYPE_CHECKING:
    from mpi4py import MPI

FULL = {"samples": 3_000, "snps": 20_000, "traits": 500, "permutations": 8}
QUICK = {"samples": 1_600, "snps": 4_000, "traits": 200, "permutations": 16}
COMMANDS = ("kinship", "eigen", "single_trait", "multi_trait", "low_rank", "vgwas", "ridge")
MISSING = 0.005
"""Of the genotypes: enough that every block of SNPs has gaps, as the plan of a kinship takes it."""
SHARE = 0.9
"""Of the time of a run that the compared phases make up."""
WANTED = 1.25
UNKNOWN = 1000.0
UNPLANNED = ("start",)
"""Phases that are the launcher's: here all runs share one start."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--ranks", type=numbers, default=[1, 2], metavar="P,P", help="numbers of ranks (1,2)")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if launched():
        measure(options)
        return
    options.scratch.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    result, quick = options.scratch / "plan-check.json", ["--quick"] if options.quick else []
    for ranks in options.ranks:
        rates = options.scratch / f"plan-check-rates-{ranks}.json"
        mpirun(ranks, "-m", "mpgls", "doctor", "--directory", options.scratch, "--json", rates)
        for command in COMMANDS:  # in processes of their own: each loads what it needs
            mpirun(ranks, __file__, command, *quick, "--scratch", options.scratch, "--result", result)
            runs.append(json.loads(result.read_text(encoding="utf-8")))
    report(runs)
    worst = max(phase["ratio"] for run in runs for phase in run["phases"] if phase["compared"])
    sizes = QUICK if options.quick else FULL
    finish({"worst_ratio": worst, "runs": runs, **sizes, "quick": options.quick}, options.json)


# -- on the ranks -----------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> None:
    """One command, planned and run on the ranks that there are; rank 0 writes what came of it."""
    from mpi4py import MPI

    import mpgls

    comm, size = MPI.COMM_WORLD, QUICK if options.quick else FULL
    data = options.scratch / f"plan-check-{size['samples']}x{size['snps']}x{size['traits']}"
    if not comm.bcast(Path(f"{data}.one.tsv").exists() if comm.rank == 0 else None, root=0):
        sizes = {name: size[name] for name in ("samples", "snps", "traits")}
        mpgls.simulate(**sizes, missing=MISSING, out=data, comm=comm)
        if comm.rank == 0:
            write_tables(data)
        comm.Barrier()
    rates = options.scratch / f"plan-check-rates-{comm.size}.json"
    out = str(options.scratch / f"plan-check-run-{comm.size}")
    made = one_run(options.command, commands(data, out, size)[options.command], out, rates, comm)
    if comm.rank == 0:
        options.result.write_text(json.dumps(made), encoding="utf-8")


def write_tables(data: Path) -> None:
    """The first trait alone, as a plan knows the columns that are used and none beside them; all of them in HDF5."""
    header, *lines = (line.split("\t") for line in Path(f"{data}.pheno.tsv").read_text(encoding="utf-8").splitlines())
    with h5py.File(f"{data}.pheno.h5", "w") as file:
        file["traits"] = np.array([line[2:] for line in lines], dtype=np.float32).T
        file.create_dataset("names", data=header[2:], dtype=h5py.string_dtype())
        file.create_dataset("samples", data=[" ".join(line[:2]) for line in lines], dtype=h5py.string_dtype())
    one = "".join("\t".join(line[:3]) + "\n" for line in [header, *lines])
    Path(f"{data}.one.tsv").write_text(one, encoding="utf-8")


def commands(data: Path, out: str, size: dict[str, int]) -> dict[str, dict[str, Any]]:
    """The options of each of COMMANDS; a later one reads what an earlier one has made."""
    bed = {"bfile": str(data)}
    study = {**bed, "pheno": f"{data}.pheno.tsv", "covar": f"{data}.covar.tsv"}
    trait = {**study, "pheno": f"{data}.one.tsv"}
    permuted, grm = {"permutations": size["permutations"]}, {"grm": f"{out}.kinship.h5"}
    of_each = (
        bed,
        grm,
        {**trait, **grm},
        {**study, **grm},
        {**trait, "similarity_count": size["samples"] // 2},
        {**study, "pheno": f"{data}.pheno.h5", **permuted},
        {**bed, "pheno": f"{data}.pheno.tsv", "permutations": size["permutations"] // 4},
    )
    return dict(zip(COMMANDS, of_each, strict=True))


def one_run(name: str, given: dict[str, Any], out: str, rates: Path, comm: MPI.Comm) -> dict[str, Any]:
    """One command: seconds of its phases, predicted and measured."""
    import mpgls

    function, prefix = getattr(mpgls, name), f"{out}.{name}"
    told = function(**given, dry_run=True, rates=str(rates), out=prefix, comm=comm).manifest
    done = function(**given, out=prefix, comm=comm).manifest
    measured = {phase: row["seconds"] for phase, row in done["timings"].items() if phase not in UNPLANNED}
    phases = compare(predicted(told), measured)
    return {"command": name.replace("_", "-"), "ranks": comm.size, "phases": phases, "seconds": sum(measured.values())}


def predicted(told: dict[str, Any]) -> dict[str, float]:
    """Seconds by phase; the stages' terms of one name together."""
    seconds: dict[str, float] = {}
    terms = [stage["terms"].items() for stage in told.get("stages", ())]
    for name, value in [pair for each in terms for pair in each] or [(p["name"], p["seconds"]) for p in told["phases"]]:
        seconds[name] = seconds.get(name, 0.0) + value
    if "tables" in seconds:  # the run reports both in one phase
        seconds["report"] = seconds.pop("tables") + seconds.pop("plots")
    return seconds


def compare(told: dict[str, float], measured: dict[str, float]) -> list[dict[str, Any]]:
    """The measured phases, the longest first; ``compared`` are those that make up SHARE of the time."""
    whole, so_far, phases = sum(measured.values()), 0.0, []
    for name, seconds in sorted(measured.items(), key=lambda pair: -pair[1]):
        guess = told.get(name, 0.0)
        ratio = min(UNKNOWN, max(guess / seconds, seconds / guess)) if guess > 0 and seconds > 0 else UNKNOWN
        phases.append(
            {"name": name, "measured": seconds, "predicted": guess, "ratio": ratio, "compared": so_far < SHARE * whole}
        )
        so_far += seconds
    return phases


def report(runs: list[dict[str, Any]]) -> None:
    """The compared phases of all runs for a person."""
    for run in runs:
        rows = [
            [one["name"], one["measured"], one["predicted"], one["predicted"] / one["measured"]]
            for one in run["phases"] if one["compared"]
        ]  # fmt: skip
        ranks = f"{run['ranks']} rank{'s' * (run['ranks'] > 1)}"
        print_table([f"{run['command']}, {ranks}", "measured", "predicted", "ratio"], rows, " ")
    print(f"\naim: every ratio between {1 / WANTED:g} and {WANTED:g}")


if __name__ == "__main__":
    guarded(main)
