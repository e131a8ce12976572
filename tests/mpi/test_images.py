"""``mpgls vgwas-extract`` and ``mpgls simulate-images`` on any number of ranks."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import nibabel
import numpy as np
import pytest
from mpi4py import MPI
from ranks import few_ranks
from small_images import AFFINE, SHAPE, save, small_mask, write_images
from small_study import assert_left_alone

import mpgls
from mpgls.errors import InputError, MemoryPlanError, MpglsError, Stopped
from mpgls.mpi import StopSignal, on_root
from mpgls.study.images import open_voxels
from mpgls.study.nifti import Mask
from mpgls.study.plink import open_fileset
from mpgls.study.synthetic_images import SmoothNoise

PEOPLE = 23


@pytest.fixture
def study(comm, shared_tmp_path) -> Path:
    """Images of 23 people; voxel 5 of the mask never varies."""

    def make() -> None:
        Y = write_images(shared_tmp_path, PEOPLE)
        at = tuple(np.argwhere(small_mask())[5])
        for k in range(PEOPLE):
            Y[(k, *at)] = 0.75
            save(shared_tmp_path / f"images/brain {k}.nii{'.gz' if k % 2 else ''}", Y[k])
        save(shared_tmp_path / "all.nii.gz", np.moveaxis(Y, 0, -1))
        np.save(shared_tmp_path / "Y.npy", Y)

    on_root(comm, make)
    return shared_tmp_path


@pytest.fixture
def genotypes(comm, shared_tmp_path) -> Path:
    """37 people, 211 SNPs, some genotypes missing, and a mask."""
    mpgls.simulate(comm=comm, samples=37, snps=211, out=shared_tmp_path / "g", missing=0.02, families=1, seed=4)
    on_root(comm, lambda: save(shared_tmp_path / "mask.nii.gz", small_mask().astype(np.uint8)))
    return shared_tmp_path


def extract(folder: Path, comm, out: str, images: str = "images.tsv", ids: str | None = None, **run) -> None:
    image_ids = None if ids is None else folder / ids
    files = {"images": folder / images, "image_ids": image_ids, "mask": folder / "mask.nii.gz", "out": folder / out}
    mpgls.vgwas_extract(comm=comm, **files | run)


def test_voxel_matrix_is_the_images_inside_the_mask(comm, study):
    extract(study, comm, "list")
    extract(study, comm, "volumes", "all.nii.gz", "ids.txt")
    if comm.rank == 0:
        matrix = open_voxels(study / "list.h5")
        assert matrix.ids == [(f"F{k}", f"I{k}") for k in range(PEOPLE)]
        np.testing.assert_array_equal(matrix.coordinates, np.argwhere(small_mask()))
        np.testing.assert_allclose(matrix.affine, AFFINE, atol=1e-6)
        Y = np.load(study / "Y.npy")
        np.testing.assert_array_equal(matrix.columns(0, matrix.v), Y[:, small_mask()])
        assert (study / "volumes.h5").read_bytes() == (study / "list.h5").read_bytes()
        facts = json.loads((study / "list.json").read_text())
        assert (facts["n"], facts["voxels"]) == (PEOPLE, matrix.v)
        log = (study / "list.log").read_text()
        assert f"1 of {matrix.v} voxels have the same value in all {PEOPLE} images" in log
        assert not list(study.glob("*.partial"))
        # the same bytes on one rank
        extract(study, MPI.COMM_SELF, "alone")
        assert (study / "alone.h5").read_bytes() == (study / "list.h5").read_bytes()


def test_bad_image_on_any_rank_is_told_on_all(comm, study):
    """The last person's image is bad, so the last rank finds it; no file is left behind."""
    on_root(comm, lambda: save(study / f"images/brain {PEOPLE - 1}.nii", np.full(SHAPE, np.nan)))
    with pytest.raises(InputError, match=rf"brain {PEOPLE - 1}.nii \(person 'F22 I22'\): voxel .* is nan"):
        extract(study, comm, "bad")
    comm.Barrier()
    assert sorted(path.name for path in study.glob("bad*")) == ["bad.log"]


def test_every_rank_hears_of_a_missing_file(comm, study):
    with pytest.raises(MpglsError, match="no such file"):
        extract(study, comm, "x", mask=study / "no.nii")


@few_ranks
def test_too_little_memory_is_refused(comm, study):
    with pytest.raises(MemoryPlanError, match="one image at a time needs"):
        extract(study, comm, "small", memory=0.001)
    assert not (study / "small.h5").exists()


def test_stopped_run_leaves_no_file(comm, study, monkeypatch):
    last = comm.size - 1

    def heard(self: StopSignal) -> nullcontext[StopSignal]:
        if MPI.COMM_WORLD.rank == last:
            self.ask()
        return nullcontext(self)

    monkeypatch.setattr(StopSignal, "listening", heard)
    with pytest.raises(Stopped, match=r"go on with: mpgls vgwas-extract .* --resume"):
        extract(study, comm, "stopped")
    comm.Barrier()
    assert not list(study.glob("stopped*.h5*"))
    monkeypatch.undo()
    extract(study, comm, "stopped", resume=True)
    assert (study / "stopped.h5").exists()


@few_ranks
def test_a_complete_run_is_not_done_again(comm, study):
    extract(study, comm, "complete")
    assert_left_alone(study / "complete", lambda: extract(study, comm, "complete", resume=True))


def simulated(folder: Path, comm, out: str, **options) -> None:
    mpgls.simulate_images(comm=comm, bfile=folder / "g", mask=folder / "mask.nii.gz", out=folder / out, **options)


def dosages(folder: Path, snp: str) -> tuple[np.ndarray, float]:
    """The standardised copies of A1 of a SNP, a missing one at the mean, straight from the .bed; and their SD."""
    files = open_fileset(folder / "g")
    k = files.variants.read(0, files.bed.m).id.index(snp)
    packed = np.fromfile(files.bed.path, np.uint8, files.bed.snp_bytes, offset=files.bed.offset(k))
    codes = ((packed[:, None] >> np.array([0, 2, 4, 6])) & 3).ravel()[: files.bed.n]
    x = np.array([2.0, np.nan, 1.0, 0.0])[codes]
    x = np.where(np.isnan(x), 0.0, x - np.nanmean(x))
    return x / x.std(), x.std()


@pytest.mark.parametrize("size", [{"effect_radius": 6.0}, {"effect_volume": 11}])
def test_images_are_the_stated_effects_in_noise(comm, genotypes, size):
    simulated(genotypes, comm, "s", causal=5, snr=0.3, sigma_mm=2.0, seed=9, format="h5", **size)
    if comm.rank != 0:
        return
    matrix = open_voxels(genotypes / "s.h5")
    mask = Mask("", small_mask(), matrix.affine)
    noise = SmoothNoise(mask, 2.0, 9)
    expected = np.array([noise.draw(i) for i in range(37)])
    header, *rows = [line.split("\t") for line in (genotypes / "s.causal.tsv").read_text().splitlines()]
    assert header == ["SNP", "effect", "i", "j", "k", "radius_mm", "voxels"] and len(rows) == 5
    for snp, effect, i, j, k, radius, voxels in rows:
        x, sd = dosages(genotypes, snp)
        assert abs(float(effect)) == pytest.approx(np.sqrt(0.3) / sd, rel=1e-6)
        at = (matrix.affine[:3, :3] @ (matrix.coordinates - np.array([i, j, k], dtype=int)).T).T
        inside = np.linalg.norm(at, axis=1) <= float(radius) * (1 + 1e-5)
        assert inside.sum() == int(voxels) and ("effect_volume" not in size or int(voxels) >= 11)
        expected[:, inside] += np.outer(np.sign(float(effect)) * np.sqrt(0.3) * x, np.ones(inside.sum()))
    np.testing.assert_allclose(matrix.columns(0, matrix.v), expected, rtol=1e-5, atol=1e-5)


def test_bytes_do_not_depend_on_the_ranks_or_the_format(comm, genotypes):
    simulated(genotypes, comm, "n", causal=3)
    simulated(genotypes, comm, "h", causal=3, format="h5")
    extract(genotypes, comm, "e", "n.images.tsv")
    if comm.rank == 0:
        simulated(genotypes, MPI.COMM_SELF, "one", causal=3)
        simulated(genotypes, MPI.COMM_SELF, "one.h", causal=3, format="h5")
        made = sorted((genotypes / "n.images").iterdir())
        assert len(made) == 37
        for path in made:
            assert path.read_bytes() == (genotypes / "one.images" / path.name).read_bytes()
        assert (genotypes / "h.h5").read_bytes() == (genotypes / "one.h.h5").read_bytes()
        assert (genotypes / "n.causal.tsv").read_bytes() == (genotypes / "one.causal.tsv").read_bytes()
        direct, through = open_voxels(genotypes / "h.h5"), open_voxels(genotypes / "e.h5")
        assert direct.ids == through.ids
        np.testing.assert_array_equal(direct.columns(0, direct.v), through.columns(0, direct.v))
        volume = np.asarray(nibabel.load(made[0]).dataobj)
        assert volume.dtype == np.float32 and not volume[~small_mask()].any()


@few_ranks
def test_a_person_has_the_same_noise_in_any_selection(comm, genotypes):
    ids = open_fileset(genotypes / "g").samples.ids()
    keep = genotypes / "keep.txt"
    on_root(comm, lambda: keep.write_text("".join(f"{fid} {iid}\n" for fid, iid in ids[5:30:3])))
    simulated(genotypes, comm, "all", causal=0, format="h5")
    simulated(genotypes, comm, "some", causal=0, format="h5", keep=keep)
    if comm.rank == 0:
        everyone, some = open_voxels(genotypes / "all.h5"), open_voxels(genotypes / "some.h5")
        assert some.ids == ids[5:30:3]
        v = some.v
        np.testing.assert_array_equal(some.columns(0, v), everyone.columns(0, v, np.arange(5, 30, 3)))


@few_ranks
def test_complete_images_are_not_made_again(comm, genotypes):
    simulated(genotypes, comm, "c", causal=2)
    assert_left_alone(genotypes / "c", lambda: simulated(genotypes, comm, "c", causal=2, resume=True))
    on_root(comm, (genotypes / "c.causal.tsv").unlink)
    simulated(genotypes, comm, "c", causal=2, resume=True)
    assert (genotypes / "c.causal.tsv").exists()


@few_ranks
def test_too_few_causal_snps(comm, genotypes):
    names = open_fileset(genotypes / "g").variants.read(0, 4).id
    chosen = genotypes / "snps.txt"
    on_root(comm, lambda: chosen.write_text("\n".join(names)))
    with pytest.raises(InputError, match=r"only \d of 4 SNPs drawn"):
        simulated(genotypes, comm, "few", extract=chosen)
    assert not list(genotypes.glob("few*.tsv"))
