"""``mpgls vgwas`` against the dense oracle, and against itself on other ranks, in other tiles, stopped and resumed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import strict_lanes
import vgwas_oracle as oracle
from mpi4py import MPI
from ranks import few_ranks
from scipy import ndimage
from small_study import (
    PlinkFiles,
    assert_left_alone,
    on_root,
    read_facts,
    read_plink,
    read_rows,
    read_table,
    write_genotypes,
    write_lines,
    write_table,
)
from strict_card import StrictCard

import mpgls
from mpgls.device import cuda, nominate
from mpgls.engine import voxelwise, voxelwise_plan
from mpgls.errors import InputError, MemoryPlanError, Stopped, UsageError
from mpgls.model import mulm
from mpgls.model.permute import permutation
from mpgls.study.images import create_voxels

N, M, P = 97, 61, 7
SHAPE = (7, 6, 5)
THRESHOLD = 0.02
CONSTANT = 11
"""A voxel with one value."""
STATISTICS = ("log10p", "volume", "sum_log10p", "cluster_volume", "cluster_mass", "tfce")


@dataclass(frozen=True)
class Study:
    """Simulated genotypes (a SNP without variance, one without genotypes), voxels with an effect, covariates."""

    folder: Path
    bfile: str
    covar: str
    voxels: str
    pheno: str
    plink: PlinkFiles
    Y: np.ndarray
    coordinates: np.ndarray

    @property
    def Z(self):
        return np.column_stack([np.ones(N), *list(read_table(self.covar).values())[:2]])


def make_voxels(plink):
    """Smooth noise, an effect of SNP 3 in a corner, and a constant voxel: Y (n, v) float32, and coordinates (v, 3)."""
    rng = np.random.default_rng(5)
    coordinates = np.argwhere(rng.random(SHAPE) < 0.85)
    noise = np.stack([ndimage.gaussian_filter(rng.standard_normal(SHAPE), 0.8) for _ in range(N)])
    noise = 100 + 8 * noise / noise.std()
    noise[:, :3, :3, :3] += 7 * plink.centred()[:, 3, None, None, None]
    Y = noise[(slice(None), *coordinates.T)].astype("<f4")
    Y[:, CONSTANT] = 3.7
    return Y, coordinates


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    folder, prefix = module_folder, str(module_folder / "g")
    mpgls.simulate(comm=module_comm, samples=N, snps=M, out=prefix, chromosomes=3, missing=0.03, seed=3)
    covar, voxels, pheno, places = (str(folder / name) for name in ("c.tsv", "v.h5", "p.tsv", "ijk.tsv"))

    def write():
        dosages = read_plink(prefix).dosages
        dosages[:, 3] = np.random.default_rng(2).integers(0, 3, N)
        dosages[:, 7], dosages[:, 8] = 1.0, np.nan
        write_genotypes(prefix, dosages)
        plink = read_plink(prefix)
        rng = np.random.default_rng(6)
        columns = {"age": rng.normal(40, 9, N), "sex": rng.integers(0, 2, N).astype(float)}
        write_table(covar, plink.ids, columns | {"site": rng.integers(0, 3, N).astype(float)})
        Y, coordinates = make_voxels(plink)
        order = rng.permutation(N)  # people in an order of their own, and one without genotypes
        ids = [plink.ids[k] for k in order] + [("X", "x")]
        rows = create_voxels(voxels, ids, coordinates, SHAPE, np.diag([2.0, 2.0, 3.0, 1.0]), "mask")
        rows.write(0, np.vstack([Y[order], Y[:1]]))
        write_table(pheno, plink.ids, {f"v{k}": Y[:, k].astype(np.float64) for k in range(Y.shape[1])})
        rows = (f"v{voxel}\t{i}\t{j}\t{k}" for voxel, (i, j, k) in enumerate(coordinates))
        write_lines(places, ["TRAIT\tI\tJ\tK", *rows])

    on_root(module_comm, write)
    plink = read_plink(prefix)
    return Study(folder, prefix, covar, voxels, pheno, plink, *make_voxels(plink))


def scan(comm, study, out="o", **options):
    """Run vgwas; the prefix of its outputs."""
    comm.Barrier()  # nobody still reads what the last run made
    defaults = {
        "bfile": study.bfile, "covar": study.covar, "covar_name": ("age", "sex"), "threads": 1, "permutations": P,
        "sparsity_threshold": THRESHOLD, "no_plots": True,
    }  # fmt: skip
    given = defaults | ({} if "pheno" in options else {"voxels": study.voxels}) | options
    if given["covar"] is None:
        del given["covar_name"]
    prefix = study.folder / out
    mpgls.vgwas(comm=comm, out=prefix, **given)
    comm.Barrier()
    return prefix


def read(prefix):
    """Everything in the two HDF5 files."""
    found = {}
    for name in ("maxima", "voxels"):
        with h5py.File(f"{prefix}.{name}.h5", "r") as file:
            found |= {f"{name}/{key}": file[key][...] for key in file}
    return found


def same(one, other):
    assert set(one) == set(other)
    for key in one:
        assert one[key].dtype == other[key].dtype and one[key].tobytes() == other[key].tobytes(), key


def usable(study):
    """SNPs with variance, voxels with variance."""
    return np.flatnonzero(np.ptp(study.plink.centred(), axis=0) > 0), np.flatnonzero(np.ptp(study.Y, axis=0) > 0)


def expected_t(study, order=None, Z=None):
    """t (M, v) by the oracle, 0 where nothing can be tested."""
    t = np.zeros((M, study.Y.shape[1]))
    snps, voxels = usable(study)
    X, Y = study.plink.centred()[:, snps], study.Y[:, voxels].astype(np.float64)
    t[np.ix_(snps, voxels)] = oracle.t_scores(X, Y, study.Z if Z is None else Z, order)
    return t


@pytest.mark.parametrize(("precision", "tolerance"), [("double", 1e-10), ("mixed", 1e-5)])
@pytest.mark.parametrize("covariates", [True, False])
def test_t_of_every_pair_is_that_of_the_full_regression(comm, study, precision, tolerance, covariates):
    covar = {} if covariates else {"covar": None}
    prefix = scan(comm, study, precision=precision, sparsity_threshold=1.0, permutations=0, **covar)
    found = read(prefix)
    Z = study.Z if covariates else np.ones((N, 1))
    t = expected_t(study, Z=Z)
    snps, voxels = usable(study)
    assert found["voxels/t"].size == snps.size * voxels.size
    here = t[found["voxels/snp"], found["voxels/voxel"]]
    np.testing.assert_allclose(found["voxels/t"], here, rtol=tolerance, atol=tolerance)
    df = N - Z.shape[1] - 1
    np.testing.assert_allclose(found["voxels/log10p"], oracle.log10_p(here, df), rtol=10 * tolerance, atol=tolerance)
    design = np.column_stack([Z, study.plink.centred()[:, 3]])
    effects = np.linalg.lstsq(design, study.Y.astype(np.float64), rcond=None)[0][-1]
    mine = found["voxels/snp"] == 3
    np.testing.assert_allclose(found["voxels/beta"][mine], effects[found["voxels/voxel"][mine]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_statistics_and_maxima_under_every_permutation(comm, study, connectivity):
    prefix = scan(comm, study, precision="double", connectivity=connectivity, tfce_step=0.15, seed=4)
    found, df = read(prefix), N - 4
    maxima = {name: [] for name in STATISTICS}
    for index in range(P + 1):
        t = expected_t(study, permutation(4, index, N))
        of_snps = oracle.statistics(t, df, THRESHOLD, study.coordinates, SHAPE, connectivity, 0.15)
        for name in STATISTICS:
            maxima[name].append(of_snps[name].max())
        if index == 0:
            for name in STATISTICS:
                np.testing.assert_allclose(found["voxels/records"][name], of_snps[name], rtol=1e-9, err_msg=name)
    for name in STATISTICS:
        np.testing.assert_allclose(found[f"maxima/{name}"], maxima[name], rtol=1e-9, err_msg=name)
    assert maxima["cluster_volume"][0] > max(maxima["cluster_volume"][1:])  # the effect of SNP 3


@pytest.mark.parametrize("precision", ["mixed", "double"])
def test_every_bit_is_the_same_on_other_ranks_in_other_tiles_teams_and_chunks(comm, study, precision, monkeypatch):
    alone = comm.Split(0 if comm.rank == 0 else MPI.UNDEFINED)
    if comm.rank == 0:
        scan(alone, study, "alone", precision=precision)
        alone.Free()
    comm.Barrier()
    expected = read(study.folder / "alone")
    same(read(scan(comm, study, precision=precision)), expected)
    same(read(scan(comm, study, precision=precision, block_size=13)), expected)
    for team in range(1, comm.size + 1):
        same(read(scan(comm, study, precision=precision, team_size=team)), expected)
        same(read(scan(comm, study, precision=precision, team_size=team, voxel_chunk=29)), expected)
    monkeypatch.setattr(voxelwise, "TOGETHER", 50)
    tile = mulm.TileScan.__init__
    monkeypatch.setattr(mulm.TileScan, "__init__", lambda self, *given: tile(self, *given, tile_snps=9, tile_bytes=999))
    same(read(scan(comm, study, precision=precision)), expected)


@pytest.fixture
def card(monkeypatch):
    """A stand-in for CuPy on every rank, and room for fewer pairs than are nominated."""
    strict_lanes.begin_anew()
    monkeypatch.setattr(cuda, "open_card", lambda rank, size, limit: StrictCard(limit or 2**40))
    monkeypatch.setattr(voxelwise_plan, "FEWEST_NOMINATED", 8)
    monkeypatch.setattr(voxelwise_plan, "NOMINATED", 0.1)


@few_ranks
def test_every_bit_is_the_same_on_gpus(comm, study, card):
    """A dominant coding, and samples that are exchanged within blocks, are made on the ranks."""
    given = {"model": "dominant", "blocks": "site", "permutations": 2}
    same(read(scan(comm, study, device="gpu", **given)), read(scan(comm, study, "alone", **given)))


@few_ranks
def test_every_bit_is_the_same_where_voxels_do_not_fit_a_gpu(comm, study, card, monkeypatch):
    """They lie on it in parts, or are streamed; less than one SNP does not go."""
    sizes = {"WIDEST_TILE": 3000, "NARROWEST_TILE": 1000, "NARROWEST_CHUNK": 32, "UPLOAD": 500}
    for name, value in sizes.items():
        monkeypatch.setattr(voxelwise_plan, name, value)
    monkeypatch.setattr(nominate, "TERMS", 48)
    monkeypatch.setattr(nominate, "UPLOAD", 500)
    given = {"permutations": 1, "precision": "double"}
    expected = read(scan(comm, study, "alone", **given))
    prefix = scan(comm, study, device="gpu", team_size=comm.size, gpu_memory={1: 7.5e-5, 2: 6e-5}[comm.size], **given)
    same(read(prefix), expected)
    if comm.rank == 0:
        log = prefix.with_name(f"{prefix.name}.log").read_text()
        assert "voxels lie on it at a time, and are copied to it for every unit: teams of" in log, log
        assert "copy to the GPU" in log
    same(read(scan(comm, study, device="gpu", voxel_chunk=99, **given)), expected)
    with pytest.raises(
        MemoryPlanError, match=r"need 0\.\d\d GiB of a GPU, which has 0\.00: give a larger --gpu-memory"
    ):
        scan(comm, study, device="gpu", gpu_memory=1e-6, **given)


def test_a_stopped_run_resumes_to_the_same_bits(comm, study, monkeypatch):
    expected = read(scan(comm, study))
    unit = voxelwise.UnitScan.unit
    done = [0]

    def stopping(self, *given):
        done[0] += 1
        if done[0] > 2:
            self.world.stop.ask()
        return unit(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(voxelwise.UnitScan, "unit", stopping)
        with pytest.raises(Stopped):
            scan(comm, study, "stopped", block_size=7)
    with pytest.raises(InputError, match=r"--seed was not given, now it is 9"):
        scan(comm, study, "stopped", resume=True, seed=9)
    units = []
    with monkeypatch.context() as patch:
        patch.setattr(voxelwise.UnitScan, "unit", lambda self, *given: units.append(1) or unit(self, *given))
        same(read(scan(comm, study, "stopped", resume=True)), expected)
    assert comm.allreduce(len(units)) + 2 * comm.size >= -(-M // 7)
    assert comm.allreduce(len(units)) > 0
    assert not list(study.folder.glob("stopped.units.*"))


@few_ranks
def test_a_complete_run_is_not_done_again(comm, study):
    prefix = scan(comm, study, "complete")
    assert_left_alone(prefix, lambda: scan(comm, study, "complete", resume=True))
    comm.Barrier()
    if comm.rank == 0:
        Path(f"{prefix}.snps.tsv").unlink()
    scan(comm, study, "complete", resume=True)
    assert Path(f"{prefix}.snps.tsv").exists()


@few_ranks
def test_a_torn_log_costs_only_the_unit_that_was_being_written(comm, study, monkeypatch):
    expected = read(scan(comm, study))
    with monkeypatch.context() as patch:
        patch.setattr("mpgls.engine.voxelwise_store.VoxelwiseStore.keep", lambda *_: 1 / 0)
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            scan(comm, study, "torn", block_size=17)
    prefix = study.folder / "torn"
    if comm.rank == 0:
        path = Path(f"{prefix}.units.00000")
        path.write_bytes(path.read_bytes()[:-3])
    comm.Barrier()
    same(read(scan(comm, study, "torn", resume=True)), expected)


@few_ranks
def test_more_permutations_are_added_to_a_finished_run(comm, study):
    expected = read(scan(comm, study, "whole"))
    scan(comm, study, "parts", permutations=3)
    with pytest.raises(UsageError, match="--first-permutation 4"):
        scan(comm, study, "parts", permutations=2, first_permutation=6)
    same(read(scan(comm, study, "parts", permutations=P - 3, first_permutation=4)), expected)
    assert Path(f"{study.folder}/parts.snps.tsv").read_text() == Path(f"{study.folder}/whole.snps.tsv").read_text()
    with pytest.raises(UsageError, match="finished run"):
        scan(comm, study, "nothing", first_permutation=4)


@few_ranks
def test_blocks_are_permuted_within_and_are_no_covariate(comm, study):
    prefix = scan(comm, study, precision="double", blocks="site", covar_name=(), permutations=2)
    site = read_table(study.covar)["site"]
    groups = np.unique(site, return_inverse=True)[1]
    for index in (1, 2):
        order = permutation(1, index, N, groups)
        assert np.array_equal(site[order], site)
        largest = np.abs(expected_t(study, order)).max()
        np.testing.assert_allclose(read(prefix)["maxima/log10p"][index], oracle.log10_p(largest, N - 4), rtol=1e-8)


@few_ranks
def test_traits_with_coordinates_give_what_the_voxel_matrix_gives(comm, study):
    expected = read(scan(comm, study))
    found = read(scan(comm, study, "t", pheno=study.pheno, coordinates=str(study.folder / "ijk.tsv")))
    for name in STATISTICS:
        np.testing.assert_array_equal(found[f"maxima/{name}"], expected[f"maxima/{name}"])
    without = read(scan(comm, study, "t", pheno=study.pheno))
    assert [key for key in without if key.startswith("maxima/")] == [
        f"maxima/{name}" for name in sorted(STATISTICS[:3], key=str)
    ]
    np.testing.assert_array_equal(without["maxima/sum_log10p"], expected["maxima/sum_log10p"])


@few_ranks
@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_table_and_facts(comm, study):
    prefix = scan(comm, study, "table", no_plots=False, maps=1, maf=0.05)
    frequency = np.nan_to_num(study.plink.frequency())
    by_id = {row["ID"]: row for row in read_rows(f"{prefix}.snps.tsv")}
    filtered = np.minimum(frequency, 1 - frequency) < 0.05
    assert set(by_id) == {name for name, drop in zip(study.plink.snps, filtered, strict=True) if not drop}
    best = by_id[study.plink.snps[3]]
    assert float(best["FWE_P_CLUSTER_VOLUME"]) == 1 / (P + 1)
    assert by_id[study.plink.snps[7]]["NOTE"] == "monomorphic"
    t = np.where(filtered[:, None], 0.0, expected_t(study))
    peak = np.abs(t[3]).argmax()
    assert best["PEAK_VOXEL"] == ",".join(map(str, study.coordinates[peak]))
    np.testing.assert_allclose(float(best["T"]), t[3, peak], rtol=1e-5)
    facts = read_facts(prefix)
    assert facts["permutations"] == P and facts["df"] == N - 4 and facts["constant_voxels"] == 1
    for name in facts["files"]:
        assert Path(name).exists(), name
    assert any(name.endswith(".map.png") for name in facts["files"])


@few_ranks
def test_each_of_the_best_snps_has_maps_whatever_its_id(comm, study):
    """IDs that are all the same, and IDs that differ in punctuation only."""
    for name, one_id in (("dots", lambda k: "."), ("marks", lambda k: f"1:{k // 2}:{'A/G' if k % 2 else 'A:G'}")):
        bfile = study.folder / name

        def relabel(bfile=bfile, one_id=one_id):
            for ending in (".bed", ".fam"):
                shutil.copy(f"{study.bfile}{ending}", f"{bfile}{ending}")
            lines = [line.split() for line in Path(f"{study.bfile}.bim").read_text().splitlines()]
            text = ("\t".join([line[0], one_id(k), *line[2:]]) for k, line in enumerate(lines))
            Path(f"{bfile}.bim").write_text("\n".join(text) + "\n")

        on_root(comm, relabel)
        prefix = scan(comm, study, f"maps_{name}", bfile=str(bfile), maps=6, permutations=0)
        rows = read_rows(f"{prefix}.snps.tsv")
        maps = [path for path in read_facts(prefix)["files"] if path.endswith(".log10p.nii.gz")]
        assert len(maps) == len(set(maps)) == 6 and len(set(read_facts(prefix)["files"])) == 6 * 3 + 3
        largest = sorted(float(np.asarray(nibabel.load(path).dataobj).max()) for path in maps)
        expected = sorted(float(row["LOG10P"]) for row in rows if row["LOG10P"] != "NA")[-6:]
        np.testing.assert_allclose(largest, expected, rtol=1e-6)


@few_ranks
def test_memory_that_cannot_do_is_refused_before_anything_large(comm, study):
    with pytest.raises(MemoryPlanError, match="give --memory"):
        scan(comm, study, memory=0.01)


@few_ranks
def test_a_missing_value_of_a_trait_is_named(comm, study):
    path = study.folder / "gap.tsv"
    if comm.rank == 0:
        lines = Path(study.pheno).read_text().splitlines()
        fields = lines[5].split("\t")
        fields[9] = "NA"
        lines[5] = "\t".join(fields)
        path.write_text("\n".join(lines) + "\n")
    comm.Barrier()
    fid, iid = study.plink.ids[4]
    with pytest.raises(InputError, match=f"voxel 'v7' of sample '{fid} {iid}' is missing"):
        scan(comm, study, pheno=str(path))
