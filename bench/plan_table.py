"""What each command costs for 10,000, 100,000 and 500,000 people, as ``mpgls plan`` predicts it: a table of Markdown.

Nothing is run: the rates are those of one machine, measured by ``mpgls doctor --json``. The machine, its ranks and the
memory of a rank are options. GCTA's exact LOCO (63,000 people, 690,000 SNPs) is a row of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Iterator
from typing import Any

from mpi4py import MPI

import mpgls
from mpgls.engine.cost_text import time_text
from mpgls.errors import MemoryPlanError

PEOPLE = (10_000, 100_000, 500_000)
SNPS = 690_000
ROWS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("kinship", "kinship", {"snps": SNPS}),
    ("kinship", "kinship --loco", {"snps": SNPS, "loco": True}),
    ("eigen", "eigen", {}),
    ("single-trait", "single-trait", {"snps": SNPS}),
    ("single-trait", "single-trait --loco", {"snps": SNPS, "loco": True}),
    ("multi-trait", "multi-trait, 1,000 traits", {"snps": SNPS, "traits": 1000}),
    ("low-rank", "low-rank, 5,000 similarity SNPs", {"snps": SNPS, "similarity_count": 5000}),
    ("vgwas", "vgwas, 50,000 voxels, 100 permutations", {"snps": SNPS, "voxels": 50_000, "permutations": 100}),
    ("ridge", "ridge, 100 targets, 1,000 permutations", {"snps": SNPS, "traits": 100}),
)
GCTA = 63_000
"""People of GCTA's exact LOCO; its SNPs are SNPS."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--rates", required=True, help="JSON of mpgls doctor")
    parser.add_argument("--ranks", type=int, default=64, help="ranks (64)")
    parser.add_argument("--ranks-per-node", type=int, default=16, help="ranks of a node (16)")
    parser.add_argument("--memory", type=float, default=8.0, help="GiB a rank (8)")
    options = parser.parse_args()
    machine = vars(options)
    print("| command | " + " | ".join(f"{n:,} people" for n in PEOPLE) + " |\n|---|---|---|---|")
    for what, label, sizes in ROWS:
        print(f"| `{label}` | " + " | ".join(cell(what, n, sizes, machine) for n in PEOPLE) + " |")
    print(f"\n| {GCTA:,} people | |\n|---|---|")
    for what, label, sizes in ROWS:
        if sizes.get("loco"):
            print(f"| `{label}` | {cell(what, GCTA, sizes, machine)} |")


def cell(what: str, n: int, sizes: dict[str, Any], machine: dict[str, Any]) -> str:
    """Hours on the ranks asked for, or on the fewest that fit; core-hours, and memory of a rank."""
    for ranks in doubled(machine["ranks"]):
        with contextlib.suppress(MemoryPlanError), contextlib.redirect_stdout(io.StringIO()):
            made = mpgls.plan(
                what=what, samples=n, **sizes, **{**machine, "ranks": ranks}, comm=MPI.COMM_SELF, verbose=True
            ).manifest
            spent, stages = made["seconds"] / 3600 * ranks, made["plan"]["stages"].values()
            memory = (sum if what == "vgwas" else max)(stages) / 2**30
            where = "" if ranks == machine["ranks"] else f" on {ranks:,} ranks"
            core_hours = f"{spent:,.0f}" if spent >= 100 else f"{spent:.2g}"
            return f"{time_text(made['seconds'])}{where}; {core_hours} core-hours; {memory:.2g} GiB"
    return "does not fit"


def doubled(ranks: int) -> Iterator[int]:
    """The ranks, and twice as many, and so on."""
    for k in range(7):
        yield ranks << k


if __name__ == "__main__":
    main()
