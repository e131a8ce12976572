"""Every command, started with each of ten odd but legal files of each kind that it reads.

The log tells in one line what was understood of each file, and the numbers are those of the plain files. In run k every
file is odd in another way, and over ten runs each file in all of its ways.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import odd_files
import pytest
from ranks import few_ranks
from small_study import on_root, read_plink, read_rows

import mpgls

pytestmark = few_ranks

N, M, GRID = 41, 60, (3, 2, 2)
NAMES = {
    "fam": "g.fam", "bim": "g.bim", "pheno": "traits.txt", "covar": "covariates.txt", "keep": "keep.txt",
    "remove": "remove.txt", "extract": "extract.txt", "exclude": "exclude.txt", "similarity_snps": "similar.txt",
    "grm.id": "K.grm.id", "images": "images.txt",
}  # fmt: skip
SAYS = {
    "fam": f"g.fam: {N} samples",
    "bim": f"g.bim: {M} SNPs",
    "pheno": f"traits.txt: {N} samples, ",
    "covar": f"covariates.txt: {N} samples, 2 columns read (age, sex)",
    "keep": f"keep.txt: {N - 2} samples listed",
    "remove": "remove.txt: 1 samples listed",
    "extract": f"extract.txt: {M - 3} SNP IDs listed",
    "exclude": "exclude.txt: 2 SNP IDs listed",
    "similarity_snps": "similar.txt: 30 SNP IDs listed",
    "grm.id": f"K.grm.bin: {N} samples; samples of ",
    "images": f"images.txt: {N - 1} people with an image, 0 without",
}
CODES = {"missing_code": ("-9",), "covar_name": ("age,sex",)}
FILTERS = ("keep", "remove", "extract", "exclude")


@dataclass(frozen=True)
class Command:
    """A function of the Python face, the kinds of files that it reads and its other options."""

    function: Callable[..., Any]
    kinds: tuple[str, ...]
    options: dict[str, Any]
    steps: int = 3
    """From one kind's way to the next one's."""


COMMANDS = {
    "kinship": Command(mpgls.kinship, ("fam", "bim", *FILTERS), {"chr": "1,X"}),
    # a kinship without FIDs has no sample of a list with them, so both are odd in the same way
    "eigen": Command(mpgls.eigen, ("keep", "grm.id"), {}, steps=0),
    "single-trait": Command(
        mpgls.single_trait, ("fam", "bim", "pheno", "covar", "grm.id", *FILTERS), {"chr": "chr01,23", **CODES}
    ),
    "single-trait --loco": Command(
        mpgls.single_trait, ("fam", "bim", "pheno"), {"loco": True, "pheno_name": "y", "missing_code": "-9"}
    ),
    "multi-trait": Command(
        mpgls.multi_trait, ("fam", "bim", "pheno", "covar", "grm.id", *FILTERS), {"p_threshold": 1.0, **CODES}
    ),
    "low-rank": Command(
        mpgls.low_rank, ("fam", "bim", "pheno", "covar", *FILTERS, "similarity_snps"),
        {"similarity_bfile": "plain/g", **CODES},
    ),
    "vgwas": Command(
        mpgls.vgwas, ("fam", "bim", "covar", "images", *FILTERS),
        {"permutations": 2, "sparsity_threshold": 0.5, **CODES},
    ),
    "vgwas --pheno": Command(
        mpgls.vgwas, ("fam", "bim", "pheno", "covar"),
        {"pheno_name": ("z,w",), "permutations": 2, "sparsity_threshold": 0.5, **CODES},
    ),
    "vgwas-extract": Command(mpgls.vgwas_extract, ("images",), {}),
    "ridge": Command(
        mpgls.ridge, ("fam", "bim", "pheno", "covar", "grm.id", *FILTERS),
        {"outer_folds": 3, "inner_folds": 2, "permutations": 2, "alphas": (0.1, 10.0), "groups": "fid", **CODES},
    ),
    "ridge --images": Command(
        mpgls.ridge, ("fam", "bim", "images"),
        {"parcels": 2, "outer_folds": 3, "inner_folds": 2, "permutations": 2, "alphas": (0.1, 10.0)},
    ),
    "simulate-images": Command(
        mpgls.simulate_images, ("fam", "bim", *FILTERS), {"causal": 2, "format": "h5", "chr": "X,1", "maf": 0.0}
    ),
}  # fmt: skip


@pytest.fixture
def folder(comm, shared_tmp_path):
    """Plain files of every kind in plain/, one kinship of them in two forms, images and a mask."""
    prefix = str(shared_tmp_path / "g")
    mpgls.simulate(samples=N, snps=M, out=prefix, chromosomes=3, h2=0.6, seed=7, comm=comm)

    def make() -> None:
        (shared_tmp_path / "plain").mkdir()
        for kind, lines in plain_lines(prefix).items():
            (shared_tmp_path / "plain" / NAMES[kind]).write_bytes(odd_files.plain(lines))
        shutil.copy(f"{prefix}.bed", shared_tmp_path / "plain/g.bed")
        nibabel.save(nibabel.Nifti1Image(np.ones(GRID, dtype=np.uint8), np.eye(4)), shared_tmp_path / "mask.nii")
        brains = np.random.default_rng(2).standard_normal((N, *GRID)).astype(np.float32)
        for k, brain in enumerate(brains):
            nibabel.save(nibabel.Nifti1Image(brain, np.eye(4)), shared_tmp_path / f"{k}.nii")

    on_root(comm, make)
    mpgls.kinship(bfile=shared_tmp_path / "plain/g", out=shared_tmp_path / "K", grm_bin=True, comm=comm)
    mpgls.kinship(bfile=shared_tmp_path / "plain/g", out=shared_tmp_path / "K_loco", loco=True, comm=comm)
    on_root(comm, lambda: [shutil.copy(shared_tmp_path / f"K.grm.{end}", shared_tmp_path / "plain") for end in ENDS])
    return shared_tmp_path


ENDS = ("bin", "id")


def people() -> list[str]:
    """FID, tab, IID; families of two, one of which begins with a #, and no IID twice."""
    return [f"{'#12' if k // 2 == 3 else f'F{k // 2}'}\tI{k}" for k in range(N)]


def plain_lines(prefix: str) -> dict[str, list[str]]:
    """The lines of the plain files but .grm.id, with chromosomes 1, 2 and 23."""
    rng, plink, who = np.random.default_rng(1), read_plink(prefix), people()
    y, z, w, age = (rng.standard_normal(N) + plink.dosages[:, k] for k in (0, 20, 40, 50))
    bim = [line.split() for line in Path(f"{prefix}.bim").read_text().splitlines()]
    snps = [row[1] for row in bim]

    def table(**columns: list[str]) -> list[str]:
        return ["\t".join(row) for row in zip(["FID\tIID", *who], *([n, *c] for n, c in columns.items()), strict=True)]

    def texts(values: np.ndarray, missing: int | None = None) -> list[str]:
        return ["NA" if k == missing else repr(float(value)) for k, value in enumerate(values)]

    return {
        "fam": [f"{one}\t0\t0\t1\t{value}" for one, value in zip(who, texts(y), strict=True)],
        "bim": ["\t".join([row[0].replace("3", "23"), *row[1:]]) for row in bim],
        "pheno": table(y=texts(y, missing=4), z=texts(z), w=texts(w)),
        "covar": table(note=["text"] * N, age=texts(age, missing=9), sex=texts(np.arange(N) % 2)),
        "keep": who[:-2],
        "remove": who[6:7],
        "extract": [*snps[:-4], "never"],
        "exclude": [snps[3], snps[-6]],
        "similarity_snps": snps[::2],
        "images": ["FID\tIID\tPATH", *(f"{one}\t../{k}.nii" for k, one in enumerate(who) if k != 11)],
    }


def write_odd(folder: Path, command: Command, run: int) -> dict[str, str]:
    """Write the files of a run beside the plain ones, into odd/; returns what the log should say of each kind."""
    shutil.rmtree(folder / "odd", ignore_errors=True)
    shutil.copytree(folder / "plain", folder / "odd")
    facts = {}
    for place, kind in enumerate(command.kinds):
        way, fact = odd_files.WAYS[kind][(run + command.steps * place) % odd_files.COUNT]
        lines = (folder / "plain" / NAMES[kind]).read_text().splitlines()
        (folder / "odd" / NAMES[kind]).write_bytes(way(lines))
        facts[kind] = fact
    return facts


def start(command: Command, folder: Path, files: str, comm: Any) -> Path:
    """Run the command on the files in the folder ``files``; returns the prefix of its outputs."""
    given = {kind: str(folder / files / NAMES[kind]) for kind in command.kinds}
    options = command.options | {kind: given[kind] for kind in given.keys() - {"fam", "bim", "grm.id"}}
    if "fam" in given:
        options["bfile"] = str(folder / files / ("g.bed" if files == "odd" else "g"))
    if "grm.id" in given or "loco" in options:
        options["grm"] = str(folder / ("K_loco.h5" if "loco" in options else f"{files}/K"))
    if "images" in given or "causal" in options:
        options["mask"] = str(folder / "mask.nii")
    if "similarity_bfile" in options:
        options["similarity_bfile"] = str(folder / options["similarity_bfile"])
    if "no_plots" in inspect.signature(command.function).parameters:
        options["no_plots"] = True
    out = folder / f"{files}_out"
    command.function(out=out, comm=comm, **options)
    comm.Barrier()
    return out


def numbers(prefix: Path) -> dict[str, Any]:
    """Every table but its names of chromosomes, and the matrices."""
    import h5py

    found: dict[str, Any] = {}
    for path in sorted(prefix.parent.glob(f"{prefix.name}.*tsv")):
        rows = read_rows(path)
        found[path.name.removeprefix(prefix.name)] = [
            {name: value for name, value in row.items() if name not in ("CHR", "BEST_CHR", "FID")} for row in rows
        ]
    if prefix.with_name(f"{prefix.name}.h5").exists():
        with h5py.File(f"{prefix}.h5", "r") as file:
            for name in ("kinship", "eigenvalues", "voxels"):
                if name in file:
                    found[name] = file[name][...].tolist()
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_the_log_tells_what_was_understood_and_the_numbers_are_the_same(comm, folder, name):
    if comm.size > 2:
        pytest.skip("one rank reads; more than two show nothing new")
    command = COMMANDS[name]
    expected = numbers(start(command, folder, "plain", comm))
    assert expected
    for run in range(odd_files.COUNT) if comm.size == 1 else (4, 7):
        facts = comm.bcast(write_odd(folder, command, run) if comm.rank == 0 else None)
        out = start(command, folder, "odd", comm)
        if comm.rank == 0:
            assert numbers(out) == expected, facts
            lines = Path(f"{out}.log").read_text().splitlines()
            for kind, fact in facts.items():
                said = [line for line in lines if f"odd/{SAYS[kind]}" in line]
                assert len(said) == 1 and told(fact, kind, name) in said[0], (kind, fact, said)
        comm.Barrier()


def test_the_log_tells_what_is_in_tables_of_a_single_command(comm, folder):
    if comm.size > 2:
        pytest.skip("one rank reads; more than two show nothing new")
    here = folder / "plain"
    samples = [tuple(line.split()[:2]) for line in (here / "g.fam").read_text().splitlines()]
    inner = [f"{fid} {iid} {k % 2} {k // 2 % 2} {k // 4 % 2}" for k, (fid, iid) in enumerate(samples)]
    tables = {
        "h2.txt": ["TRAIT CHR H2", "y chr1 0.3", "y 7 0.2"],
        "site.txt": ["FID IID SITE", *(f"{fid} {iid} s{k % 7}" for k, (fid, iid) in enumerate(samples))],
        "folds.txt": ["FID IID OUTER A B", *inner],
        "places.txt": ["TRAIT I J K", "z 0 0 0", "w 0 0 1", "far 3 3 3"],
    }
    on_root(comm, lambda: [(here / name).write_text("\n".join(rows) + "\n") for name, rows in tables.items()])
    files = {name: str(here / name) for name in tables}
    study = {"bfile": str(here / "g"), "pheno": str(here / NAMES["pheno"]), "comm": comm, "no_plots": True}
    folds = {"outer_folds": 3, "inner_folds": 2, "permutations": 2, "alphas": (1.0,), "pheno_name": "z"}
    runs: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
        "given": (
            mpgls.single_trait,
            {"grm": str(folder / "K_loco.h5"), "loco": True, "pheno_name": "y", "h2_file": files["h2.txt"]},
            "h2.txt: 1 of ",
        ),
        "grouped": (mpgls.ridge, {**folds, "groups": files["site.txt"]}, "site.txt: 7 groups of "),
        "blocked": (mpgls.ridge, {**folds, "blocks": files["site.txt"]}, "site.txt: 7 blocks of "),
        "folded": (
            mpgls.ridge,
            {"permutations": 2, "alphas": (1.0,), "pheno_name": "z", "folds_file": files["folds.txt"]},
            "folds.txt: outer and inner folds of ",
        ),
        "placed": (
            mpgls.vgwas,
            {"pheno_name": ("z,w",), "permutations": 2, "coordinates": files["places.txt"]},
            "places.txt: places of 2 voxels",
        ),
    }
    for name, (function, options, fact) in runs.items():
        function(out=folder / name, **study, **options)
        lines = comm.bcast((folder / f"{name}.log").read_text().splitlines() if comm.rank == 0 else None)
        assert sum(fact in line for line in lines) == 1, (name, fact, lines)


def told(fact: str, kind: str, name: str) -> str:
    """What the log says where a command has no genotypes, so no families to take FIDs from, or reads other columns."""
    if (kind, name) in (("grm.id", "eigen"), ("images", "vgwas-extract")):
        return fact.replace(odd_files.BY_IID, "no column FID: FID is 0")
    return (
        fact.replace("1 value of -9 is", "0 values of -9 are") if name == "vgwas --pheno" and kind == "pheno" else fact
    )


def test_an_eigendecomposition_of_people_without_families(comm, folder):
    """No genotypes are there when it is made; a scan then finds the people by their IIDs."""
    plain = folder / "plain"

    def leave_families_out() -> None:
        (folder / "K.grm.id").write_text("".join(line.split("\t")[1] + "\n" for line in people()))

    expected = None
    for step in (lambda: None, leave_families_out):
        on_root(comm, step)
        mpgls.eigen(grm=str(folder / "K"), out=folder / "E", comm=comm)
        scan = {"bfile": str(plain / "g"), "eigen": str(folder / "E.h5"), "pheno": str(plain / "traits.txt")}
        mpgls.single_trait(**scan, pheno_name="z", out=folder / "s", no_plots=True, comm=comm)
        mpgls.multi_trait(**scan, pheno_name="z", out=folder / "m", no_plots=True, p_threshold=1, comm=comm)
        comm.Barrier()
        found = numbers(folder / "s"), numbers(folder / "m")
        expected = expected or found
        assert found == expected and len(found[0][".z.tsv"]) == M
        comm.Barrier()
    if comm.rank == 0:
        for out in ("s", "m"):
            log = (folder / f"{out}.log").read_text()
            assert log.count("E.h5: 41 samples; all have FID 0: FID is that of the genotypes' sample with the") == 1


def test_people_without_families_are_no_family(comm, folder):
    """FID 0 for everybody: in ridge each is a group of its own, as in a table of groups with a label for each."""
    plain, few = folder / "plain", {"outer_folds": 3, "inner_folds": 2, "permutations": 2, "no_plots": True}

    def leave_families_out() -> None:
        for name in ("g.fam", "traits.txt"):
            lines = (plain / name).read_text().splitlines()
            (plain / name).write_text("".join("0\t" + line.split("\t", 1)[1] + "\n" for line in lines))
        header = (plain / "traits.txt").read_text().replace("0\tIID", "FID\tIID")
        (plain / "traits.txt").write_text(header)
        (folder / "groups.txt").write_text("".join(["IID GROUP\n", *(f"I{k} I{k}\n" for k in range(N))]))

    on_root(comm, leave_families_out)
    files = {"bfile": str(plain / "g"), "pheno": str(plain / "traits.txt"), "pheno_name": "z"}
    for groups in ("fid", str(folder / "groups.txt")):
        mpgls.ridge(**files, groups=groups, out=folder / f"r{len(groups)}", comm=comm, **few)
    comm.Barrier()
    if comm.rank == 0:
        assert numbers(folder / "r3") == numbers(folder / f"r{len(groups)}")
        note = "41 of 41 samples have FID 0, which is no family: each is a group of its own"
        assert note in (folder / "r3.log").read_text()
