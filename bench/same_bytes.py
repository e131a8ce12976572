"""The same command on as many ranks, twice: is every number of every file the same in all its bits?

    python bench/same_bytes.py --quick

Each command runs twice on 3, 5, 6 and 7 ranks (3 and 5 with --quick). They are more than the cores, so that they meet
in another order each time. Files are compared byte by byte; HDF5 files hold the time at which they were made, so their
datasets and attributes are compared instead. The JSON has, for each of ``ranks``, the number of ``files`` and the names
of those that are ``different``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, guarded, launched, make_parser, mpirun, numbers, print_table

FOLDERS = ("first", "second")
NOT_COMPARED = {".json", ".log"}
"""Endings of files that say when and how fast a run was."""
TOKEN = "token"
"""What tells a store from another one; it is random."""
SEAL = "sum"
"""The checksum of a file with its token."""
STUDY: dict[str, Any] = {"bfile": "sim", "pheno": "sim.pheno.tsv", "no_plots": True, "threads": 1}
FOLDS = {"outer_folds": 3, "inner_folds": 2, "permutations": 9}


def commands() -> dict[str, dict[str, Any]]:
    """The options of every run, by the name of its outputs; the first word is the command."""
    return {
        "kinship": {"bfile": "sim", "loco": True, "threads": 1},
        "eigen": {"grm": "K.h5", "threads": 1},
        "single_trait": {"grm": "K.h5"} | STUDY,
        "single_trait-loco": {"grm": "K.h5", "loco": True} | STUDY,
        "single_trait-grid": {"grm": "K.h5", "solver": "grid", "team_size": 3} | STUDY,
        "single_trait-inverse": {"grm": "K.h5", "solver": "inverse", "team_size": 3} | STUDY,
        "single_trait-ratio": {"grm": "K.h5", "ratio": "snp"} | STUDY,
        "single_trait-mixed": {"grm": "K.h5", "precision": "mixed"} | STUDY,
        "single_trait-eigen": {"eigen": "E.h5"} | STUDY,
        "multi_trait": {"grm": "K.h5", "dense": True} | STUDY,
        "multi_trait-team": {"grm": "K.h5", "dense": True, "team_size": 2} | STUDY,
        "low_rank": {"similarity_every": 9} | STUDY,
        "low_rank-team": {"similarity_every": 9, "team_size": 2} | STUDY,
        "vgwas": {"permutations": 9} | STUDY,
        "ridge": FOLDS | STUDY,
    }


def make_study(folder: Path) -> None:
    """Genotypes, traits, a kinship and its eigendecomposition, by one process."""
    import mpgls

    os.chdir(folder)
    mpgls.simulate(samples=301, snps=900, chromosomes=3, traits=3, missing=0.01, out="sim")
    mpgls.kinship(bfile="sim", loco=True, out="K")
    mpgls.eigen(grm="K.h5", out="E")


def run_twice(folder: Path, names: list[str]) -> None:
    """Each of the runs ``names`` twice, on the ranks of this job; a single rank makes the study."""
    from mpi4py import MPI

    import mpgls

    if MPI.COMM_WORLD.size == 1:
        make_study(folder)
        return
    os.chdir(folder)
    for out in FOLDERS:
        for name in names:
            options = commands()[name]
            getattr(mpgls, name.partition("-")[0])(comm=MPI.COMM_WORLD, out=f"{out}/{name}", **options)


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """What is compared of a file, by name."""
    if path.suffix != ".h5":
        yield "", path.read_bytes()
        return
    import h5py

    with h5py.File(path) as file:
        names: list[str] = ["/"]
        file.visit(names.append)
        for name in names:
            attributes = {key: value for key, value in file[name].attrs.items() if key not in (TOKEN, SEAL)}
            yield from ((f"{name}@{key}", as_bytes(np.asarray(value))) for key, value in attributes.items())
            if name != TOKEN and isinstance(file[name], h5py.Dataset):
                yield name, as_bytes(np.asarray(file[name][()]))


def as_bytes(values: np.ndarray) -> bytes:
    """The bytes of numbers; of texts, which are objects, what they say."""
    return str(values.tolist()).encode() if values.dtype == object else values.tobytes()


def compare(folder: Path) -> tuple[int, list[str]]:
    """The number of files compared, and those that differ."""
    first, second = (
        {path.name: path for path in sorted((folder / name).iterdir()) if path.suffix not in NOT_COMPARED}
        for name in FOLDERS
    )
    both = first.keys() & second.keys()
    changed = [name for name in both if list(contents(first[name])) != list(contents(second[name]))]
    return len(first), sorted([*changed, *(first.keys() ^ second.keys())])


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--ranks", type=numbers, metavar="LIST", help="numbers of ranks (3,5,6,7; 3,5 with --quick)")
    parser.add_argument("--runs", nargs="+", default=[*commands()], choices=[*commands()], help="which runs (all)")
    options = parser.parse_args()
    folder = options.scratch / "same-bytes"
    if launched():
        run_twice(folder, options.runs)
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mpirun(1, *sys.argv)
    rows: list[tuple[Any, ...]] = []
    for ranks in options.ranks or ([3, 5] if options.quick else [3, 5, 6, 7]):
        for name in FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir()
        mpirun(ranks, *sys.argv)
        rows.append((ranks, *compare(folder)))
    print_table(["ranks", "files", "that differ"], [(str(r), n, ", ".join(d) or "none") for r, n, d in rows])
    found = {"ranks": [r for r, _, _ in rows], "files": [n for _, n, _ in rows], "different": [d for _, _, d in rows]}
    finish(found, options.json)


if __name__ == "__main__":
    guarded(main)
