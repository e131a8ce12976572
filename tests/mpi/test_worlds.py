"""Chromosomes that worlds of ranks take by themselves: the same figures as all ranks together, errors and stops."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import oracle
import pytest
from small_study import (
    SimulatedStudy,
    on_root,
    read_facts,
    read_kinship,
    read_plink,
    read_results,
    read_table,
    unchecked,
    write_table,
)

import mpgls
from mpgls.engine import trait_scan
from mpgls.errors import InputError, NumericalError, Stopped
from mpgls.mpi import agree
from mpgls.run.world import World
from mpgls.run.worlds import split_world
from mpgls.stream.store import open_store

N, M, C = 71, 97, 5
TRAITS = ("trait1", "trait2")


@dataclass(frozen=True)
class Study(SimulatedStudy):
    """Simulated files with missing genotypes, five chromosomes and a gap in the second trait; a kinship with sums."""

    grm: str


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    comm, folder = module_comm, module_folder
    prefix, pheno = str(folder / "g"), str(folder / "traits.tsv")
    mpgls.simulate(samples=N, snps=M, traits=2, chromosomes=C, missing=0.03, seed=3, out=prefix, comm=comm)
    mpgls.kinship(bfile=prefix, loco=True, out=folder / "K", comm=comm, threads=1)

    def change():
        traits = read_table(f"{prefix}.pheno.tsv")
        traits["trait2"][[3, 40, 41]] = np.nan
        write_table(pheno, read_plink(prefix).ids, traits)

    on_root(comm, change)
    return Study(folder, prefix, pheno, f"{prefix}.covar.tsv", read_plink(prefix), str(folder / "K.h5"))


def scan(comm, study, out, **options):
    """single-trait --loco; returns the prefix of its outputs."""
    usual = {"pheno": study.pheno, "grm": study.grm, "loco": True, "no_plots": True, "threads": 1, "block_size": 7}
    mpgls.single_trait(bfile=study.bfile, out=study.folder / out, comm=comm, **usual | options)
    comm.Barrier()
    return study.folder / out


def worlds_of(out):
    """How many worlds the log of a run speaks of."""
    found = re.search(r"plan: (\d+) worlds, of whole chromosomes", Path(f"{out}.log").read_text())
    return 1 if found is None else int(found[1])


def said_where_dealt(log, labels):
    """Each world's chromosomes stand in the log under its name, and each chromosome is some world's."""
    dealt = {name: share.split(", ") for name, share in re.findall(r"  (world \d of \d): chromosomes (.+)", log)}
    assert sorted(label for share in dealt.values() for label in share) == sorted(labels)
    _, *others = re.split(r"  (world \d of \d) said:\n", log)
    assert (
        others[::2] == list(dealt)[1:] and f"{len(dealt)} kinships at a time" in log and "other worlds (waiting)" in log
    )
    for name, said in zip(others[::2], others[1::2], strict=True):
        assert set(re.findall(r"trait1, chromosome (\d): h2 ", said)) == set(dealt[name])


@pytest.mark.parametrize("options", [{}, {"precision": "mixed"}, {"ratio": "snp"}, {"chr": "1,2"}], ids=str)
def test_worlds_give_what_all_ranks_give_together(comm, study, options):
    if options:
        options = options | {"pheno_name": ("trait1",)}
    apart, together = scan(comm, study, "apart", **options), scan(comm, study, "one", team_size=comm.size, **options)
    if comm.rank > 0:
        return
    several = comm.size in (2, 4) if "chr" in options else comm.size > 1  # two chromosomes are not for 3 ranks
    assert (worlds_of(apart) > 1, worlds_of(together)) == (several, 1)
    log = Path(f"{apart}.log").read_text()
    if several:
        said_where_dealt(log, list(read_facts(apart, "trait1")["loco"]))
    for trait in options.get("pheno_name", TRAITS):
        found, wanted = (read_facts(one, trait) for one in (apart, together))
        for label in wanted["loco"]:
            assert found["loco"][label]["h2"] == pytest.approx(wanted["loco"][label]["h2"], abs=1e-8)
            assert len(re.findall(rf"{trait}, chromosome {label}: h2 ", log)) == 1
        assert found["funnel"] == wanted["funnel"] and ("mixed_check_beta" in found) == ("mixed_check_beta" in wanted)
        if comm.size == 1 or options.get("precision") == "mixed":
            continue
        ours, theirs = (read_results(one, trait) for one in (apart, together))
        for name in ("BETA", "SE", "LOG10P"):
            scale = np.nanmax(np.abs(theirs[name]))
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-7, atol=1e-8 * scale, err_msg=name)


def test_a_given_h2_gives_the_effects_of_the_oracle_in_every_world(comm, study):
    out = scan(comm, study, "apart", pheno_name=("trait1",), h2=0.4)
    if comm.rank > 0:
        return
    X, order, results = study.plink.centred(), np.array(study.plink.chromosomes), read_results(out, "trait1")
    for label in np.unique(order):
        rest = X[:, order != label]
        Phi, x = oracle.scaled(rest @ rest.T), X[:, order == label]
        beta = oracle.scan(0.4, Phi, study.design(False), study.trait("trait1"), x)[0]
        np.testing.assert_allclose(results["BETA"][order == label], beta, rtol=1e-9, atol=1e-9 * np.abs(beta).max())


def test_the_kinship_of_worlds_is_that_of_all_snps(comm, study):
    mpgls.kinship(bfile=study.bfile, loco=True, maf=0.2, out=study.folder / "k", comm=comm, threads=1)
    comm.Barrier()
    if comm.rank == 0:
        X, log = study.plink.centred(), Path(study.folder / "k.log").read_text()
        frequency = study.plink.frequency()
        common = np.minimum(frequency, 1 - frequency) >= 0.2
        K = X[:, common] @ X[:, common].T / common.sum()
        np.testing.assert_allclose(read_kinship(study.folder / "k.h5"), K, rtol=1e-12, atol=1e-12)
        assert f"kinship: {(~common).sum()} dropped by --maf" in log and f"{common.sum()} SNPs used" in log
        assert ("worlds, of whole chromosomes" in log) == (comm.size > 1)


def test_one_rank_that_is_asked_to_stop_stops_all_and_the_run_goes_on(comm, study, monkeypatch):
    whole = scan(comm, study, "whole")
    blocks, calls = trait_scan.left_blocks, []

    def until_then(bed, slots, wanted, team, world, label):
        calls.append(label)
        if len(calls) == 2 and comm.rank == comm.size - 1:
            world.stop.ask()
        return blocks(bed, slots, wanted, team, world, label)

    with monkeypatch.context() as patch:
        patch.setattr(trait_scan, "left_blocks", until_then)
        with pytest.raises(Stopped, match=r"^stopped by a signal; "):
            scan(comm, study, "o")
    comm.Barrier()
    done = [place.done for place in open_store(study.folder / "o.h5").traits]
    assert 0 < sum(one.sum() for one in done) < sum(one.size for one in done)
    comm.Barrier()
    again = scan(comm, study, "o", resume=True)
    if comm.rank == 0:
        for trait in TRAITS:
            for name in (f"{trait}.tsv", f"{trait}.loco.tsv"):
                assert Path(f"{again}.{name}").read_bytes() == Path(f"{whole}.{name}").read_bytes()


@pytest.mark.parametrize(("label", "chosen"), [("1", None), ("5", None), ("2", "1,2")])  # or worlds of two ranks of 4
def test_a_chromosome_without_a_factor_ends_all_ranks_with_its_error(comm, study, label, chosen):
    grm = study.folder / "bad.h5"

    def spoil():
        grm.write_bytes(Path(study.grm).read_bytes())
        with unchecked(grm) as file:
            (one,) = (sums for sums in file["loco"].values() if sums.attrs["chromosome"] == label)
            one[:30, 30:60] += 500.0  # with the mirror image it has eigenvalues of both signs, and no diagonal
            one[30:60, :30] += 500.0

    on_root(comm, spoil)
    sentence = rf", chromosome {label}: the kinship is not positive semidefinite: at h2 = 0\.9,"
    with pytest.raises(NumericalError, match=f"^trait1{sentence}"):
        scan(comm, study, "o", grm=str(grm), h2=0.9, chr=chosen)
    files = {"bfile": study.bfile, "pheno": study.pheno, "grm": grm, "out": study.folder / "many"}
    with pytest.raises(NumericalError, match=f"^group 1 of 2{sentence}"):
        mpgls.multi_trait(**files, loco=True, h2=0.9, chr=chosen, no_plots=True, threads=1, comm=comm)


def test_what_one_world_raises_all_ranks_raise(comm):
    """The other worlds are in the midst of something that they would never end."""
    for count in [count for count in (1, 2, comm.size) if comm.size % count == 0]:
        with split_world(World(comm), count) as worlds:
            assert (worlds.own.size, worlds.first_rank(worlds.number)) == (
                comm.size // count,
                comm.rank - worlds.own.rank,
            )
            with pytest.raises(InputError, match=r"^of the last world$"), worlds.together():
                with worlds.own.together():
                    if worlds.number == count - 1 and worlds.own.rank == 0:
                        raise InputError("of the last world")
                while True:
                    worlds.own.raise_if_stopped()


def test_the_error_of_a_world_is_told_where_only_one_rank_of_another_one_heard_the_call(comm):
    """The rank that heard it stops its world; its neighbour, which did not, has no reason of its own."""
    count = max(comm.size // 2, 1)
    told = pytest.raises(InputError, match=r"^of the last world$")
    with split_world(World(comm), count) as worlds, told, worlds.together():
        with worlds.own.together():
            if worlds.number == count - 1:
                raise InputError("of the last world")
        while True:
            agree(worlds.own.comm, worlds.own.stop.problem() if worlds.own.rank == 0 else None)
