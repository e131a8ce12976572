"""What checksums cost: the rows of a kinship read with and without, from memory, from disk, and to the process grid.

The file is read in turn with and without checksums, and the medians are compared: CPU seconds, or from disk, where the
kernel drops the file from memory before, wall seconds. The way to the process grid is that of every scan: read, look
for numbers that are not finite, redistribute, and compare rows with columns.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from common import finish, guarded, make_parser, print_table

FULL, QUICK, REPEATS = 8000, 3000, 7


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--samples", type=int, metavar="N", help=f"rows and columns ({FULL}; {QUICK} with --quick)")
    options = parser.parse_args()
    n = options.samples or (QUICK if options.quick else FULL)
    path = options.scratch / f"checksums-{n}.h5"
    try:
        results = measure(path, n)
    finally:
        path.unlink(missing_ok=True)
    rows = [
        [where.replace("_", " "), results[f"{where}_gb_per_s"], results[f"checked_{where}_gb_per_s"], results[share]]
        for where, share in (("read", "cost_share"), ("disk", "cost_share_disk"), ("load", "cost_share_load"))
    ]
    print_table(["", "GB/s", "GB/s with checksums", "cost"], rows, title=f"{n:,} x {n:,} float64")
    print(f"sums alone {results['sum_gb_per_s']:.3g} GB/s, CRC-32 of the bytes {results['crc32_gb_per_s']:.3g} GB/s")
    finish(results, options.json)


def measure(path: Path, n: int) -> dict[str, float]:
    """Rates in GB a second, and the share of the time that checksums take."""
    from mpi4py import MPI

    from mpgls.engine.kinship_grid import load_kinship
    from mpgls.la.grid import ProcessGrid
    from mpgls.la.matrix import GridMatrix
    from mpgls.study.checksums import row_checksums
    from mpgls.study.grm import open_kinship

    write(path, n)
    checked = open_kinship(path)
    plain = replace(checked, source=replace(checked.source, rows=replace(checked.source.rows, sums=None)))
    part = np.random.default_rng(2).standard_normal((max(1, (1 << 17) // n), n))
    nbytes = 8.0 * n * n
    with ProcessGrid(MPI.COMM_SELF) as grid:

        def load(kinship: object) -> None:
            load_kinship(GridMatrix.square(grid, n, 256), kinship, np.arange(n))

        def read(kinship: object) -> None:
            for start in range(0, n, 256):
                kinship.source.read(start, min(start + 256, n), n)

        seconds = {
            "read": in_turn(lambda: read(plain), lambda: read(checked)),
            "disk": in_turn(lambda: read(plain), lambda: read(checked), time.perf_counter, lambda: forget(path)),
            "load": in_turn(lambda: load(plain), lambda: load(checked)),
        }
    sums, crc = in_turn(lambda: row_checksums(part), lambda: zlib.crc32(part.view(np.uint8).reshape(-1).data))
    found = {"samples": n, "sum_gb_per_s": part.nbytes / sums / 1e9, "crc32_gb_per_s": part.nbytes / crc / 1e9}
    for where, (without, with_sums) in seconds.items():
        found[f"{where}_gb_per_s"], found[f"checked_{where}_gb_per_s"] = (
            nbytes / one / 1e9 for one in (without, with_sums)
        )
        found["cost_share" + ("" if where == "read" else f"_{where}")] = with_sums / without - 1.0
    return found


def write(path: Path, n: int) -> None:
    """A kinship of random numbers, symmetric, with its checksums."""
    from mpgls.study.kinship_h5 import create_kinship_h5

    path.parent.mkdir(parents=True, exist_ok=True)
    K = np.random.default_rng(1).standard_normal((n, n))
    K += K.T
    create_kinship_h5(path, [("0", str(k)) for k in range(n)], {"method": "centered", "snps": n}).rows.write(0, K)


def forget(path: Path) -> None:
    """Let the kernel drop the file from memory."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_turn(
    one: Callable[[], object],
    other: Callable[[], object],
    clock: Callable[[], float] = time.process_time,
    before: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Median seconds of two actions, each after ``before``, which is not timed."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for action, found in zip((one, other), seconds, strict=True):
            before()
            start = clock()
            action()
            found.append(clock() - start)
    return median(seconds[0]), median(seconds[1])


if __name__ == "__main__":
    guarded(main)
