"""`mpgls vgwas` on more voxels than a rank may hold: 10^6 voxels x 2,000 people x 5,000 SNPs x 10 permutations.

The voxels are noise, written straight into the HDF5 voxel matrix (8 GB), and streamed within --memory 4 GiB a rank on
two ranks. The keys are ``seconds``, ``peak_rss_gib`` and ``associations_per_s_per_core``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from common import finish, guarded, make_parser, mpirun, print_table, simulated

RANKS, MEMORY = 2, 4.0
FULL = {"samples": 2000, "snps": 5000, "side": 100, "permutations": 10}
QUICK = {"samples": 200, "snps": 500, "side": 20, "permutations": 10}


def main() -> None:
    options = make_parser(__doc__).parse_args()
    size = QUICK if options.quick else FULL
    prefix = simulated(options.scratch, size["samples"], size["snps"])
    voxels, out = options.scratch / f"voxels-{size['side']}.h5", options.scratch / "vgwas-large"
    write_voxels(voxels, Path(f"{prefix}.fam"), size["side"])
    mpirun(
        RANKS, "-m", "mpgls", "vgwas", "--bfile", prefix, "--voxels", voxels, "--permutations",
        str(size["permutations"]), "--memory", str(MEMORY), "--out", out, show=True,
    )  # fmt: skip
    manifest = json.loads(Path(f"{out}.json").read_text())
    pairs = size["snps"] * size["side"] ** 3 * (size["permutations"] + 1)
    results = {
        "seconds": manifest["seconds"],
        "peak_rss_gib": manifest["memory"]["peak_rss_max"] / 2**30,
        "largest_pss_gib": manifest["memory"]["largest_pss_max"] / 2**30,
        "memory_gib": MEMORY,
        "associations_per_s_per_core": pairs / manifest["seconds"] / RANKS,
    }
    print_table(["", "value"], [[name, float(value)] for name, value in results.items()])
    phases = {name: entry["seconds"] for name, entry in manifest["timings"].items()}
    finish(results | size | {"ranks": RANKS, "phases": phases, "quick": options.quick}, options.json)


def write_voxels(path: Path, fam: Path, side: int) -> None:
    """Noise in a cube of voxels for everybody in the .fam, a person at a time; kept for the next run."""
    from mpgls.study.images import create_voxels

    if path.exists():
        return
    ids = [(words[0], words[1]) for words in map(str.split, fam.read_text().splitlines())]
    coordinates = np.argwhere(np.ones((side, side, side), dtype=bool)).astype(np.int32)
    partial = path.with_name(f"{path.name}.partial")
    rows = create_voxels(partial, ids, coordinates, (side, side, side), np.eye(4), "cube")
    generator = np.random.default_rng(1)
    for k in range(len(ids)):
        rows.write(k, generator.standard_normal((1, coordinates.shape[0]), dtype=np.float32))
    partial.rename(path)


if __name__ == "__main__":
    guarded(main)
