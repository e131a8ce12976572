"""The paper's setting of `mpgls ridge` at full length, and a study that does not fit a rank, on two ranks.

``--case paper``: n = 1,500, 500,000 SNPs, t = 100 targets, 10,000 permutations, 5 penalties, 10 x 5 folds. [Ridge] took
50,000 core-hours for 1,000 targets: 5,000 scaled to these. ``--case large``: n = 20,000, t = 200, 100 permutations,
within 8 GiB a rank.
"""

from __future__ import annotations

import json
from typing import Any

import common
from common import finish, guarded, make_parser, mpirun, print_table, simulated

RANKS = 2
CASES = {
    "paper": {"samples": 1500, "snps": 500_000, "traits": 100, "permutations": 10_000},
    "large": {"samples": 20_000, "snps": 20_000, "traits": 200, "permutations": 100},
}
QUICK = {
    "paper": {"samples": 300, "snps": 5000, "traits": 100, "permutations": 100},
    "large": {"samples": 1000, "snps": 2000, "traits": 20, "permutations": 20},
}
MEMORY = {"paper": 4.0, "large": 8.0}
PAPER_CORE_HOURS = 5000.0


def main() -> None:
    common.LIMIT_SECONDS = 6 * 3600.0
    parser = make_parser(__doc__)
    parser.add_argument("--case", choices=tuple(CASES), default="paper")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run was stopped")
    options = parser.parse_args()
    size = (QUICK if options.quick else CASES)[options.case]
    prefix = simulated(options.scratch, size["samples"], size["snps"])
    pheno, out = options.scratch / f"ridge-{options.case}.h5", options.scratch / f"ridge-{options.case}"
    write_targets(str(prefix), pheno, size["traits"])
    mpirun(
        RANKS, "-m", "mpgls", "ridge", "--bfile", prefix, "--pheno", pheno, "--permutations",
        str(size["permutations"]), "--precision", "mixed", "--memory", str(MEMORY[options.case]), "--out", out,
        *(["--resume"] if options.resume else []), show=True,
    )  # fmt: skip
    manifest = json.loads(out.with_suffix(".json").read_text())
    seconds = manifest["seconds"]
    results: dict[str, Any] = {
        "case": options.case,
        "seconds": seconds,
        "core_hours": RANKS * seconds / 3600,
        "permutation_seconds": manifest["timings"]["permutations"]["seconds"],
        "peak_rss_gib": manifest["memory"]["peak_rss_max"] / 2**30,
        "largest_pss_gib": manifest["memory"]["largest_pss_max"] / 2**30,
        "gemm_gflops_single": manifest["gemm_gflops"]["single"],
    }
    if options.case == "paper" and not options.quick:
        results["paper_core_hours_scaled"] = PAPER_CORE_HOURS
        results["times_paper"] = PAPER_CORE_HOURS / results["core_hours"]
    print_table(["", "value"], [[name, value] for name, value in results.items() if isinstance(value, float)])
    finish(results | size | {"ranks": RANKS, "quick": options.quick}, options.json)


def write_targets(prefix: str, path: Any, t: int) -> None:
    """Targets of which a tenth depend on 20 of the first 500 SNPs, the others on chance, as HDF5."""
    import h5py
    import numpy as np

    from mpgls.study.genotypes import Decoder
    from mpgls.study.plink import open_fileset

    fileset = open_fileset(prefix)
    n, rng = fileset.bed.n, np.random.default_rng(1)
    packed = np.fromfile(f"{prefix}.bed", dtype=np.uint8, count=500 * fileset.bed.snp_bytes, offset=3)
    X = np.empty((n, 500), order="F")
    Decoder(n, [np.arange(n)], np.float64).decode(packed.reshape(500, -1), [X])
    Y = rng.standard_normal((n, t))
    for j in range(0, t, 10):
        signal = X[:, rng.permutation(500)[:20]] @ rng.standard_normal(20)
        Y[:, j] += signal / signal.std()
    with h5py.File(path, "w") as file:
        file.create_dataset("traits", data=Y.T)
        file.create_dataset("names", data=[f"target{j + 1}" for j in range(t)])
        file.create_dataset("samples", data=[list(name) for name in fileset.samples.ids()], dtype=h5py.string_dtype())


if __name__ == "__main__":
    guarded(main)
