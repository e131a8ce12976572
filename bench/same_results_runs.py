"""The runs of ``same_results.py``: every command, with the options that take other ways through the program.

A run's outputs are named ``NAME/out...``; ``NAME/out`` in a later command is an output of run ``NAME``. Sizes of
blocks and tiles are given wherever the plan could choose other ones: a sum in another order has other last digits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

# The same code has other last digits each time where three ranks decompose a kinship, probably because BLACS adds up
# over three in the order in which messages arrive. One and two ranks, and all else on three, repeat to the last bit.
THREE_RANKS = 1e-9
"""Tolerance of a scan in such a basis; 1e-12 was seen."""
THREE_RANKS_MIXED = 1e-6
"""The same in mixed precision, where a last digit decides how a number is rounded to single precision."""
NEARBY_EIGENVALUES = 1e-7
"""Of the eigenvectors themselves: those of close eigenvalues turn by the rounding over the gap; 5e-10 was seen."""


@dataclass(frozen=True)
class Step:
    """One start of the program. ``stop`` names a signal, sent once the files ``when`` have changed so often."""

    ranks: int
    arguments: str
    stop: str = ""
    when: str = ""
    changes: int = 0


@dataclass(frozen=True)
class Run:
    """Steps one after the other; ``bytewise`` outputs must have equal bytes."""

    name: str
    steps: tuple[Step, ...]
    quick: bool = False
    bytewise: bool = False
    tolerance: float = 1e-12

    @property
    def needs(self) -> set[str]:
        """The runs whose outputs this one reads."""
        words = " ".join(step.arguments for step in self.steps)
        return {name for name in re.findall(r"([\w-]+)/out", words) if name != self.name}


def all_runs() -> list[Run]:
    """Every run, each after those that it needs."""
    groups = (kinships(), eigens(), singles(), multis(), low_ranks(), voxelwise(), ridges(), others())
    return [run for group in groups for run in group]


def _run(name: str, *steps: tuple[int, str] | Step, quick: bool = False, **more: Any) -> Run:
    """A run whose steps write ``NAME/out``: where a command says ``{out}``, otherwise by --out; ``more`` of `Run`."""
    made = [step if isinstance(step, Step) else Step(*step) for step in steps]
    return Run(name, tuple(replace(one, arguments=_with_output(one.arguments, name)) for one in made), quick, **more)


def _with_output(arguments: str, name: str) -> str:
    return (arguments if "{out}" in arguments else f"{arguments} --out {{out}}").replace("{out}", f"{name}/out")


def _resumed(name: str, ranks: int, arguments: str, signal: str, when: str, changes: int) -> Run:
    """Stop a run in its midst, and go on with --resume."""
    return _run(name, Step(ranks, arguments, signal, when, changes), (ranks, f"{arguments} --resume"))


def kinships() -> list[Run]:
    start = "kinship --bfile sim --block-size 256"
    mice = "kinship --bfile mice --maf 0.01 --geno 0.05 --block-size 1024"
    return [
        _run("kinship-centered", (2, f"{start} --maf 0.01"), quick=True),
        _run("kinship-standardized", (3, f"{start} --maf 0.01 --method standardized --grm-bin")),
        _run("kinship-loco", (2, f"{start} --loco --grm-bin"), quick=True),
        _run(
            "kinship-filters", (1, f"{start} --keep keep.txt --chr 1-3 --exclude exclude.txt --geno 0.04 --mind 0.05")
        ),
        _run("kinship-mice", (2, mice)),
        _run("kinship-mice-loco", (3, f"{mice} --chr 1-3 --loco --method standardized --keep mice_keep.txt")),
    ]


def eigens() -> list[Run]:
    grm = "eigen --grm kinship-centered/out.h5"
    return [
        _run("eigen-keep", (2, f"{grm} --keep keep.txt"), quick=True),
        _run("eigen-centered", (2, f"{grm} --center-grm --eigensolver scalapack")),
        _run("eigen-three", (3, grm), tolerance=NEARBY_EIGENVALUES),
        _run("eigen-pairs", (1, "eigen --grm kinship-standardized/out --eigenpairs 5")),
    ]


def singles() -> list[Run]:
    start = "single-trait --bfile sim --block-size 100 --no-plots"
    grm = f"{start} --grm kinship-centered/out.h5"
    loco = f"{start} --grm kinship-loco/out.h5 --loco"
    three = "--pheno traits.tsv --pheno-name trait1 trait2 trait6"
    covar = "--covar covar.tsv --covar-name covar1 covar2 carrier"
    mice = "single-trait --bfile mice --maf 0.01 --block-size 512"
    # A mark after every block of two SNPs, so that the run is long enough to be stopped.
    slow = "single-trait --bfile sim --no-plots --block-size 2 --checkpoint 0"
    return [
        _run("single-grm", (2, f"{grm} {three} {covar}"), quick=True),
        _run("single-eigen", (1, f"{start} --eigen eigen-keep/out.h5 --keep keep.txt {covar}"), quick=True),
        _run("single-eigen-team", (3, f"{start} --eigen eigen-centered/out.h5 --team-size 3 --pcs 2 --maf 0.05")),
        _run("single-loco", (2, f"{loco} {three} {covar}"), quick=True),
        _run("single-loco-mixed", (3, f"{loco} {three} --precision mixed")),
        _run("single-mixed", (2, f"{grm} {three} {covar} --precision mixed")),
        _run("single-team", (2, f"{grm} {three} --team-size 2")),
        _run("single-team-mixed", (2, f"{loco} --precision mixed --team-size 2")),
        _run("single-wald", (1, f"{grm} --h2 0.4 --test wald {covar}")),
        _run("single-h2-file", (2, f"{grm} --pheno traits.tsv --pheno-name trait1 trait2 --h2-file h2.tsv")),
        _run("single-loco-h2-file", (2, f"{loco} {three} --h2-file h2_chr.tsv --test wald")),
        _run("single-pcs", (2, f"{grm} --pcs 2 --center-grm {covar}")),
        _run("single-gcta", (3, f"{start} --grm kinship-standardized/out --chr 2,4 --extract similar.txt")),
        _resumed("single-term", 2, f"{slow} --grm kinship-centered/out.h5 {three}", "TERM", "out.h5", 30),
        _resumed("single-kill", 2, f"{slow} --grm kinship-loco/out.h5 --loco", "KILL", "out.h5", 30),
        _run("single-mice", (2, f"{mice} --grm kinship-mice/out.h5")),
        _run("single-mice-loco", (2, f"{mice} --grm kinship-mice-loco/out.h5 --loco --chr 1-3 --precision mixed")),
    ]


def multis() -> list[Run]:
    start = "multi-trait --bfile sim --block-size 128 --trait-block 4 --p-threshold 0.01 --no-plots"
    grm = f"{start} --grm kinship-centered/out.h5 --pheno traits.tsv"
    loco = f"{start} --grm kinship-loco/out.h5 --loco --pheno traits.tsv"
    covar = "--covar covar.tsv --covar-name covar1 covar2 carrier"
    some = "--pheno-name trait1:trait8 flat empty"
    whole = "--pheno-name trait1 trait7:trait20"
    keep = "--eigen eigen-keep/out.h5 --keep keep.txt"
    slow = "multi-trait --bfile sim --block-size 8 --trait-block 1 --pass-traits 1 --p-threshold 0.01 --no-plots"
    slow = f"{slow} --grm kinship-centered/out.h5 --checkpoint 0 --pheno traits.tsv"
    mice = "multi-trait --bfile mice --maf 0.01 --block-size 512 --trait-block 2 --p-threshold 0.001"
    return [
        _run("multi-masks", (2, f"{grm} {covar}"), quick=True),
        _run("multi-dense", (2, f"{grm} {some} {covar} --dense"), quick=True),
        _run("multi-loco", (2, f"{loco} {some} {covar} --dense"), quick=True),
        _run("multi-loco-mixed", (2, f"{loco} --pheno-name 6-12 --precision mixed --test wald")),
        _run("multi-impute", (1, f"{grm} {covar} --missing impute --dense")),
        _run("multi-complete", (2, f"{grm} {some} --missing complete --maf 0.05 --geno 0.05")),
        _run("multi-mixed", (2, f"{grm} {some} {covar} --precision mixed --dense")),
        _run("multi-team", (2, f"{grm} {some} {covar} --team-size 2 --dense")),
        _run("multi-team-mixed", (2, f"{loco} --pheno-name trait1:trait4 --team-size 2 --precision mixed")),
        _run("multi-three", (3, f"{grm} {some} {covar} --pass-traits 3"), tolerance=THREE_RANKS),
        _run("multi-three-team", (3, f"{loco} --pheno-name trait1:trait4 --team-size 3"), tolerance=THREE_RANKS),
        _run("multi-three-mixed", (3, f"{grm} {some} --precision mixed"), tolerance=THREE_RANKS_MIXED),
        _run("multi-passes", (2, f"{grm} {covar} --pass-traits 6"), quick=True),
        _run("multi-passes-loco", (2, f"{loco} --pheno-name 1-9 --pass-traits 3 --dense")),
        _run("multi-eigen", (2, f"{start} {keep} --pheno traits.tsv {whole} {covar} --test wald")),
        _run(
            "multi-hdf5", (1, f"{start} --grm kinship-centered/out.h5 --pheno traits.h5 {whole} --pcs 2 --center-grm")
        ),
        _run("multi-h2", (1, f"{grm} {some} --h2-file h2.tsv --eigensolver scalapack")),
        _run("multi-h2-loco", (2, f"{loco} --pheno-name trait1 trait2 --h2-file h2_chr.tsv")),
        _resumed("multi-term", 2, f"{slow} --pheno-name trait1:trait12", "TERM", "out.progress*", 3),
        _resumed("multi-kill", 2, f"{slow} --pheno-name trait1:trait12 --dense", "KILL", "out.progress*", 3),
        _run("multi-mice", (2, f"{mice} --grm kinship-mice/out.h5 --pheno mice.tsv --missing complete --chr 1-6")),
    ]


def low_ranks() -> list[Run]:
    start = "low-rank --bfile sim --block-size 100 --no-plots"
    tenth = f"{start} --similarity-every 10"
    traits = "--pheno traits.tsv --pheno-name trait1 trait2 trait3 trait6"
    covar = "--covar covar.tsv --covar-name covar1 covar2 carrier"
    stages = tuple((2, f"{tenth} {traits} {covar} --stage {k}") for k in (0, 1, 2, 4))
    slow = "low-rank --bfile sim --block-size 2 --checkpoint 0 --no-plots --similarity-every 10"
    mice = "low-rank --bfile mice --block-size 512 --no-plots --maf 0.01"
    return [
        _run("low-rank-loco", (2, f"{tenth} {covar}"), quick=True),
        _run("low-rank-one", (3, f"{tenth} {covar} --no-loco --test wald")),
        _run("low-rank-traits", (2, f"{tenth} {traits} {covar} --maf 0.03"), quick=True),
        _run("low-rank-stages", *stages),
        _run("low-rank-mixed", (2, f"{tenth} {traits} {covar} --precision mixed")),
        _run("low-rank-team", (2, f"{tenth} --team-size 2")),
        _run("low-rank-team-mixed", (3, f"{tenth} --team-size 3 --precision mixed --no-loco")),
        _run("low-rank-n", (2, f"{start} --similarity-every 2 --form dense {traits} {covar}")),
        _run("low-rank-n-mixed", (2, f"{start} --similarity-count 400 --precision mixed")),
        _run("low-rank-other", (1, f"{start} --similarity-bfile other --similarity-every 3 --no-loco")),
        _run(
            "low-rank-given",
            (
                2,
                f"{start} --similarity-snps similar.txt --h2-file h2_chr.tsv --pheno traits.tsv "
                "--pheno-name trait1 --keep keep.txt --chr 1,2,4",
            ),
        ),
        _run("low-rank-h2", (1, f"{start} --similarity-count 120 --h2 0.35 --no-loco")),
        _resumed("low-rank-term", 2, slow, "TERM", "out.h5", 30),
        _resumed("low-rank-kill", 2, f"{slow} --precision mixed", "KILL", "out.h5", 60),
        _run("low-rank-mice", (2, f"{mice} --similarity-every 30 --chr 1-4")),
    ]


def voxelwise() -> list[Run]:
    start = "vgwas --bfile sim --maf 0.05 --block-size 200 --no-plots --sparsity-threshold 0.001"
    voxels = f"{start} --voxels extract-list/out.h5"
    grid = f"{start} --pheno grid.tsv --coordinates places.tsv"
    covar = "--covar covar.tsv --covar-name covar1 covar2"
    added = tuple((2, f"{voxels} {covar} --permutations 6{more}") for more in ("", " --first-permutation 7"))
    slow = "vgwas --bfile sim --maf 0.05 --block-size 20 --no-plots --checkpoint 0 --sparsity-threshold 0.001"
    slow = f"{slow} --voxels extract-list/out.h5 --permutations 60"
    return [
        _run("extract-list", (2, "vgwas-extract --images brain.images.tsv --mask mask.nii.gz"), quick=True),
        _run("extract-volume", (3, "vgwas-extract --images all.nii.gz --image-ids image_ids.txt --mask mask.nii.gz")),
        _run("vgwas-voxels", (2, f"{voxels} {covar} --permutations 12 --maps 2"), quick=True),
        _run("vgwas-images", (1, f"{start} --images brain.images.tsv --mask mask.nii.gz --permutations 4 --seed 9")),
        _run("vgwas-grid", (2, f"{grid} {covar} --permutations 10 --connectivity 26 --tfce-step 0.2"), quick=True),
        _run(
            "vgwas-traits", (3, f"{start} --pheno grid.tsv --pheno-name v1 v5 v30 --permutations 9 --precision double")
        ),
        _run("vgwas-blocks", (2, f"{voxels} {covar} --blocks site --permutations 8 --connectivity 18")),
        _run("vgwas-blocks-file", (2, f"{grid} --blocks site --blocks-file covar.tsv --permutations 7 --seed 3")),
        _run("vgwas-added", *added),
        _run("vgwas-double", (3, f"{voxels} --permutations 6 --precision double --keep keep.txt")),
        _run("vgwas-team", (2, f"{voxels} {covar} --permutations 6 --team-size 2")),
        _run("vgwas-streamed", (2, f"{voxels} {covar} --permutations 6 --voxel-chunk 50")),
        _run("vgwas-tail", (2, f"{grid} --permutations 100 --tail gpd --chr 2")),
        _resumed("vgwas-term", 2, slow, "TERM", "out.units*", 8),
        _resumed("vgwas-kill", 2, f"{slow} --team-size 2", "KILL", "out.units*", 8),
    ]


def ridges() -> list[Run]:
    start = "ridge --bfile sim --block-size 200 --no-plots --outer-folds 5 --inner-folds 3 --seed 2"
    traits = f"{start} --pheno traits.tsv --pheno-name trait1 trait7 trait8 trait9 flat"
    covar = "--covar covar.tsv --covar-name covar1 covar2"
    slow = "ridge --bfile sim --no-plots --block-size 200 --checkpoint 0 --pheno grid.tsv --permutations 300"
    voxels = "--voxels extract-list/out.h5 --parcels 12"
    images = "--images brain.images.tsv --mask mask.nii.gz --parcels 5"
    return [
        _run("ridge-targets", (2, f"{traits} {covar} --permutations 20 --save-predictions --weights 2"), quick=True),
        _run("ridge-shared", (3, f"{traits} --permutations 10 --alpha-choice shared --alphas 0.5 2 10 50")),
        _run("ridge-fold", (2, f"{traits} {covar} --permutations 3 --standardize fold --alpha-count 3")),
        _run("ridge-double", (1, f"{traits} --permutations 10 --precision double --maf 0.05")),
        _run("ridge-masks", (2, f"{start} --pheno traits.tsv --pheno-name trait2 trait3 trait6 --permutations 5")),
        _run("ridge-grm", (2, f"{traits} --grm kinship-centered/out.h5 --permutations 10")),
        _run("ridge-groups", (2, f"{traits} --groups fid --blocks labels.tsv --permutations 10 --save-predictions")),
        _run("ridge-folds-file", (1, f"{traits} --folds-file ridge-groups/out.folds.tsv --permutations 4")),
        _run("ridge-parcels", (2, f"{start} {voxels} {covar} --permutations 6 --save-predictions")),
        _run("ridge-images", (3, f"{start} {images} --permutations 4 --weights 1")),
        _resumed("ridge-term", 2, slow, "TERM", "out.progress*", 3),
        _resumed("ridge-kill", 2, f"{slow} --alpha-choice shared", "KILL", "out.progress*", 3),
    ]


def others() -> list[Run]:
    sizes = "--samples 90 --snps 400 --chromosomes 3 --traits 3 --missing 0.02"
    brain = "simulate-images --bfile sim --maf 0.1 --mask mask.nii.gz --causal 2 --seed 6"
    plan = "plan low-rank --rates rates.json --json {out}.json"
    paper = f"{plan} --samples 200000 --snps 500000 --similarity-count 20000 --ranks 16 --memory 8"
    small = f"{plan} --samples 20000 --snps 50000 --similarity-count 2000 --traits 3 --precision double --ranks 3"
    return [
        _run("export-dense", (1, "export multi-dense/out.h5 --trait trait1 trait2 trait6 --bfile sim"), quick=True),
        _run("export-dense-loco", (1, "export multi-loco/out.h5 --trait trait4")),
        _run("export-impute", (1, "export multi-impute/out.h5 --trait trait2 trait6")),
        _run("export-mixed", (1, "export multi-mixed/out.h5 --trait trait1 trait5")),
        _run("export-team", (1, "export multi-team/out.h5 --trait trait1 trait5")),
        _run("export-passes", (1, "export multi-passes-loco/out.h5 --trait trait1 trait9")),
        _run("export-resumed", (1, "export multi-kill/out.h5 --trait trait1 trait12")),
        _run("export-single", (1, "export single-grm/out.h5 --trait trait1 trait6")),
        _run("export-low-rank", (1, "export low-rank-traits/out.h5 --trait trait2")),
        _run("simulate-1", (1, f"simulate {sizes} --seed 21"), quick=True, bytewise=True),
        _run("simulate-2", (2, f"simulate {sizes} --seed 21"), bytewise=True),
        _run("simulate-3", (3, f"simulate {sizes} --seed 5 --families 1 --covariates 0 --h2 0.8"), bytewise=True),
        _run("images-nifti", (2, f"{brain} --effect-radius 5 --keep few.txt --format nifti")),
        _run("images-h5", (3, f"{brain} --effect-volume 9 --snr 0.3 --format h5")),
        _run("plan-large", (1, paper), quick=True),
        _run("plan-small", (1, small)),
    ]
