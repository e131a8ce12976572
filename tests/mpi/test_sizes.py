"""Traits of any size work or are refused with the true reason, in every command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ranks import few_ranks
from small_study import on_root, read_columns, read_plink, read_results, read_rows, read_table, write_table

import mpgls
from mpgls.errors import InputError

N, M = 61, 40
REFUSED = (1e-300, 1e-200, 1e200, 1e300)
FAR = (1e-120, 1e120)

pytestmark = few_ranks


@dataclass(frozen=True)
class Files:
    folder: Path

    def path(self, name):
        return str(self.folder / name)


@pytest.fixture(scope="module")
def files(module_comm, module_folder):
    mpgls.simulate(samples=N, snps=M, chromosomes=3, traits=1, out=module_folder / "g", seed=4, comm=module_comm)
    mpgls.kinship(bfile=module_folder / "g", out=module_folder / "K", comm=module_comm)

    def write():
        ids, y = read_plink(module_folder / "g").ids, read_table(module_folder / "g.pheno.tsv")["trait1"]
        for size in (1.0, *REFUSED, *FAR):
            write_table(module_folder / f"{size:g}.tsv", ids, {"y": size * y})
        write_table(module_folder / "all.tsv", ids, {f"y{size:g}": size * y for size in (1.0, *REFUSED, *FAR)})

    on_root(module_comm, write)
    return Files(module_folder)


def run(comm, files, command, pheno, **options):
    usual = {"bfile": files.path("g"), "pheno": files.path(f"{pheno}.tsv"), "no_plots": True, "threads": 1}
    out = files.path(command.__name__)
    command(out=out, comm=comm, **usual | options)
    comm.Barrier()
    return out


def commands(files):
    return {
        "single-trait": (mpgls.single_trait, {"grm": files.path("K.h5")}),
        "low-rank": (mpgls.low_rank, {"similarity_every": 2, "form": "low-rank"}),
    }


@pytest.mark.parametrize("name", ["single-trait", "low-rank"])
def test_a_trait_whose_squares_are_no_numbers_is_refused(comm, files, name):
    command, options = commands(files)[name]
    for size in REFUSED:
        with pytest.raises(InputError, match=r"trait 'y' goes from .* beyond the range of numbers, give it in another"):
            run(comm, files, command, f"{size:g}", **options)


@pytest.mark.parametrize("name", ["single-trait", "low-rank"])
def test_others_have_the_same_p_values(comm, files, name):
    command, options = commands(files)[name]
    tables = {
        size: read_results(run(comm, files, command, f"{size:g}", h2=0.4, **options), "y") for size in (1.0, *FAR)
    }
    for size in FAR:
        np.testing.assert_allclose(tables[size]["LOG10P"], tables[1.0]["LOG10P"], rtol=1e-10)
        np.testing.assert_allclose(tables[size]["BETA"], size * tables[1.0]["BETA"], rtol=1e-9)


@pytest.mark.parametrize(("dense", "refused"), [(False, REFUSED), (True, (*REFUSED, *FAR))])
def test_many_traits_go_on_without_those_that_are_refused(comm, files, dense, refused):
    prefix = run(comm, files, mpgls.multi_trait, "all", grm=files.path("K.h5"), dense=dense)
    if comm.rank == 0:
        rows = {row["TRAIT"]: row for row in read_rows(f"{prefix}.traits.tsv")}
        right = float(rows["y1"]["LOG10P_MAX"])
        for size in (*REFUSED, *FAR):
            row = rows[f"y{size:g}"]
            if size in refused:
                assert row["FLAGS"] == "beyond the range of numbers: another unit" and row["LOG10P_MAX"] == "NA"
            else:
                assert float(row["LOG10P_MAX"]) == pytest.approx(right, rel=1e-8)


def test_voxels_of_any_size(comm, files):
    prefix = run(comm, files, mpgls.vgwas, "all", sparsity_threshold=0.999, permutations=0)
    if comm.rank == 0:
        volumes = np.array(read_columns(f"{prefix}.snps.tsv")["VOLUME"], dtype=int)
        assert set(volumes) <= {0, 7} and (volumes == 7).sum() > 30  # all of them or none


def test_targets_of_any_size(comm, files):
    prefix = run(comm, files, mpgls.ridge, "all", permutations=0, outer_folds=3, inner_folds=2)
    if comm.rank == 0:
        r2 = [float(row["R2"]) for row in read_rows(f"{prefix}.targets.tsv")]
        np.testing.assert_allclose(r2, r2[0], rtol=0, atol=1e-12)
