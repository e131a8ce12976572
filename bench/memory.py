"""Memory of a scan: genotypes several times --memory, and one factor shared by the ranks of a node.

The peak resident set (RSS) of every rank is the kernel's own, from the manifest. The proportional set (PSS) divides
shared pages by the ranks that map them: of a factor held once for two ranks, each counts half, and the other half is
what its RSS exceeds its PSS by (beyond the libraries, which a run of 100 samples shows).
Only the factor's lower triangle is ever touched, so about half of that triangle is what sharing saves a rank of two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import finish, guarded, make_parser, mpirun, print_table, simulated

if TYPE_CHECKING:
    import argparse

GIB = 2**30
RANKS = 2
FULL, QUICK = (1000, 2_800_000), (1000, 400_000)
SHARED, LIBRARIES = (3000, 2000), (100, 2000)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--samples", type=int, metavar="N", help=f"samples of the streamed set ({FULL[0]})")
    parser.add_argument("--snps", type=int, metavar="M", help=f"its SNPs ({FULL[1]}; {QUICK[1]} with --quick)")
    parser.add_argument("--memory", type=float, default=0.2, metavar="GIB", help="--memory of a rank (0.2)")
    options = parser.parse_args()
    n, m = QUICK if options.quick else FULL
    streamed = scan(options, options.samples or n, options.snps or m, options.memory)
    shared, libraries = (scan(options, *size, None) for size in (SHARED, LIBRARIES))
    results = {
        "ranks": RANKS,
        "memory_gib": options.memory,
        "genotypes_over_memory": streamed["genotypes"] / (options.memory * GIB),
        "genotypes_over_room": streamed["genotypes"] / (options.memory * GIB - streamed["base"]),
        "peak_rss_over_memory": streamed["peak_rss"] / (options.memory * GIB),
        "factor_saved_mib_a_rank": (shared["shared"] - libraries["shared"]) / 2**20,
        "lower_triangle_mib": 4 * SHARED[0] ** 2 / 2**20,
    }
    print_table(
        ["run", "genotypes MiB", "--memory MiB", "peak RSS MiB", "PSS MiB", "RSS then MiB", "seconds"],
        [
            row("streamed", streamed, options.memory * GIB),
            row(f"factor of {8 * SHARED[0] ** 2 / 2**20:.0f} MiB", shared),
            row("libraries only", libraries),
        ],
        title=f"largest of {RANKS} ranks",
    )
    finish(results, options.json)


def row(name: str, run: dict[str, float], memory: float | None = None) -> list[Any]:
    sizes = [run["genotypes"], memory, run["peak_rss"], run["pss"], run["pss"] + run["shared"]]
    return [name, *(None if size is None else round(size / 2**20, 1) for size in sizes), run["seconds"]]


def scan(options: argparse.Namespace, n: int, m: int, memory: float | None) -> dict[str, float]:
    """Kinship (of the first chromosome) and scan of a simulated set: bytes of the rank that held most."""
    prefix = simulated(options.scratch, n, m)
    kinship, out = options.scratch / f"K-{n}x{m}", options.scratch / "memory"
    if not Path(f"{kinship}.json").exists():
        mpirun(RANKS, "-m", "mpgls", "kinship", "--bfile", prefix, "--chr", "1", "--out", kinship)
    limit = ["--no-plots"] if memory is None else ["--memory", str(memory)]
    done = mpirun(
        RANKS, "-m", "mpgls", "single-trait", "--bfile", prefix, "--grm", f"{kinship}.h5", "--h2", "0.5",
        "--team-size", "1", "--out", out, *limit,
    )  # fmt: skip
    manifest = json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))
    most = max(manifest["memory"]["ranks"], key=lambda rank: rank["peak_rss"])
    return {
        "genotypes": float(Path(f"{prefix}.bed").stat().st_size),
        "peak_rss": most["peak_rss"],
        "pss": most["largest_pss"],
        "shared": most["rss_then"] - most["largest_pss"],
        "base": manifest["memory"]["base"],
        "seconds": done.seconds,
    }


if __name__ == "__main__":
    guarded(main)
