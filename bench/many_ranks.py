"""A scan of the mice on many more ranks than there are cores, beside the same scan on one rank.

Ranks take turns on the cores, and most have no block of SNPs: what is shown is that the run ends, and that its table
is that of one rank. Sums of other parts round in another way, so REML ends elsewhere within its tolerance.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from common import finish, guarded, make_parser, mpirun, print_table
from peers import GENO, MAF, mouse

RANKS, QUICK_RANKS = 64, 8
WORDS = ("CHR", "POS", "ID", "EA", "NEA", "N", "NOTE")
"""Columns that are the same on any number of ranks."""
NUMBERS = ("EAF", "BETA", "SE", "LOG10P")
WITHIN = 1e-6
"""Relative, or of a unit of -log10 p: REML finds h2 to 1e-7."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--ranks", type=int, metavar="P", help=f"ranks ({RANKS}; {QUICK_RANKS} with --quick)")
    options = parser.parse_args()
    ranks = options.ranks or (QUICK_RANKS if options.quick else RANKS)
    options.scratch.mkdir(parents=True, exist_ok=True)
    mice = mouse(options.scratch)
    filters = ("--bfile", mice.bfile, "--maf", str(MAF))
    mpirun(1, "-m", "mpgls", "kinship", *filters, "--geno", str(GENO), "--out", mice.file(".many-K"))
    seconds, tables = {}, []
    for count in (1, ranks):
        out = mice.file(f".many-{count}")
        scan = ("single-trait", *filters, "--grm", f"{mice.file('.many-K')}.h5", "--no-plots", "--out", out)
        seconds[count] = mpirun(count, "-m", "mpgls", *scan).seconds
        tables.append(read_table(Path(f"{out}.pheno.tsv")))
    found = compare(*tables)
    rows = [[f"{count} ranks", value] for count, value in seconds.items()]
    print_table(["mice", "seconds"], rows, f"largest difference {found['largest_difference']:.2g} (at most {WITHIN:g})")
    finish(found | {"ranks": ranks, "seconds": seconds[ranks], "quick": options.quick}, options.json)


def read_table(path: Path) -> dict[str, list[str]]:
    """The columns of a table of summary statistics."""
    header, *lines = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return dict(zip(header, map(list, zip(*lines, strict=True)), strict=True))


def compare(one: dict[str, list[str]], many: dict[str, list[str]]) -> dict[str, Any]:
    """Whether both have the same SNPs with the same notes, and the largest difference of their numbers."""
    same = all(one[name] == many[name] for name in WORDS)
    pairs = [pair for name in NUMBERS for pair in zip(one[name], many[name], strict=False)]
    largest = max(distance(*pair) for pair in pairs)
    return {"same_table": same and largest <= WITHIN, "same_words": same, "largest_difference": largest}


def distance(a: str, b: str) -> float:
    """Relative where a number is above 1; infinite where one of them alone is none."""
    if "NA" in (a, b):
        return 0.0 if a == b else math.inf
    return abs(float(a) - float(b)) / max(1.0, abs(float(a)))


if __name__ == "__main__":
    guarded(main)
