"""Bad input of ``mpgls vgwas``, from outside: images, masks, voxel matrices, confounds, blocks and earlier maxima.

One clear sentence from one rank and its exit code, or a run that flags what it could not use.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from launch import MPIRUN
from refusals import INPUT, MEMORY, STORAGE, USAGE, check, edit_line, refused
from resident import mpgls, must_succeed
from small_images import AFFINE, SHAPE, save, small_mask
from small_study import read_plink, read_rows, unchecked, write_genotypes

from mpgls.run.outputs import Outputs

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")

RUN = "--permutations 3 --no-plots --out out"
IMAGES = f"vgwas --bfile sim --images images.tsv --mask mask.nii.gz {RUN}"
VOXELS = f"vgwas --bfile sim --voxels brain.h5 {RUN}"
COVAR = f"{VOXELS} --covar sim.covar.tsv"
FIRST = tuple(np.argwhere(small_mask())[0])
TRAITS = f"vgwas --bfile sim --pheno traits.tsv {RUN}"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study: genotypes, covariates, an image a person, their voxel matrix, and the first voxels as text."""
    folder = tmp_path_factory.mktemp("good")
    must_succeed(0, "simulate --samples 37 --snps 53 --chromosomes 2 --seed 3 --out sim", folder)
    write_images(folder)
    must_succeed(0, "vgwas-extract --images images.tsv --mask mask.nii.gz --out brain", folder)
    for path in (*folder.glob("brain*.json"), *folder.glob("*.log"), folder / "sim.causal.tsv"):
        path.unlink(missing_ok=True)
    return folder


def write_images(folder: Path) -> None:
    """An image a person with its mask and list; the voxels of one line of the grid as traits, and their places."""
    ids = read_plink(folder / "sim").ids
    Y = np.random.default_rng(1).standard_normal((len(ids), *SHAPE)).astype(np.float32)
    save(folder / "mask.nii.gz", small_mask().astype(np.uint8))
    (folder / "images").mkdir()
    for (_, iid), image in zip(ids, Y, strict=True):
        save(folder / "images" / f"{iid}.nii", image)
    (folder / "images.tsv").write_text(
        "FID\tIID\tPATH\n" + "".join(f"{fid}\t{iid}\timages/{iid}.nii\n" for fid, iid in ids)
    )
    rows = [[*one, *(repr(float(x)) for x in image[0, 0])] for one, image in zip(ids, Y, strict=True)]
    names = [f"v{k}" for k in range(SHAPE[2])]
    (folder / "traits.tsv").write_text("\n".join("\t".join(row) for row in (["FID", "IID", *names], *rows)) + "\n")
    places = "".join(f"{name}\t0\t0\t{k}\n" for k, name in enumerate(names))
    (folder / "places.tsv").write_text("TRAIT\tI\tJ\tK\n" + places)


@pytest.fixture
def study(good: Path, tmp_path: Path) -> Path:
    """A copy of the study for one test to spoil."""
    return shutil.copytree(good, tmp_path / "study")


def completed(study: Path, arguments: str) -> str:
    """The log of a run that must succeed."""
    must_succeed(0, arguments, study)
    return (study / "out.log").read_text()


def spoil_image(
    study: Path, number: int, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray = AFFINE
) -> str:
    """Change the image on line ``number`` of the list; returns its name."""
    path = study / (study / "images.tsv").read_text().splitlines()[number - 1].split("\t")[2]
    values = np.array(nibabel.load(path).dataobj, dtype=np.float32)
    save(path, change(values), affine)
    return path.name


def voxel_matrix(study: Path) -> AbstractContextManager[h5py.File]:
    return unchecked(study / "brain.h5")


# -- images and mask ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda study: spoil_image(study, 9, lambda image: image[:, :-1]), ["5 x 6 x 6", "5 x 7 x 6"]),
        (lambda study: spoil_image(study, 9, lambda image: image, AFFINE + 0.01), ["affine", "0.01"]),
        (lambda study: spoil_image(study, 9, lambda image: np.where(image == image[FIRST], np.nan, image)), ["nan"]),
        (lambda study: save(study / "mask.nii.gz", np.zeros(SHAPE, np.uint8)), ["mask.nii.gz is empty"]),
        (lambda study: (study / "mask.nii.gz").write_text("mask"), ["mask.nii.gz"]),
    ],
    ids=["shape", "affine", "nan", "empty mask", "no mask"],
)
def test_images_are_checked_as_by_vgwas_extract(study: Path, spoil: Callable[[Path], object], parts: list[str]) -> None:
    spoil(study)
    refused(study, IMAGES, INPUT, *parts)
    assert not list(study.glob("out*.h5"))


def test_a_person_without_image_is_left_out_and_counted(study: Path) -> None:
    edit_line(study / "images.tsv", 12, lambda fields: [*fields[:2], "NA"])
    log = completed(study, IMAGES)
    assert "left out because their path is NA: 1 people" in log
    assert "37 in the genotypes" in log and "> 36" in log
    assert {row["N"] for row in read_rows(study / "out.snps.tsv")} == {"36"}


def test_nobody_has_both_image_and_genotypes(study: Path) -> None:
    lines = (study / "sim.fam").read_text().splitlines()
    (study / "sim.fam").write_text("\n".join(f"x{line}" for line in lines) + "\n")
    refused(study, VOXELS, INPUT, "brain.h5", "no samples in common", "their FIDs differ")


def test_a_constant_voxel_has_no_entry_and_is_counted(study: Path) -> None:
    with voxel_matrix(study) as file:
        file["voxels"][:, 5] = 3.25
    log = completed(study, f"{VOXELS} --sparsity-threshold 1")
    assert "1 voxels do not vary beside the confounds" in log
    with h5py.File(study / "out.voxels.h5", "r") as file:
        voxels = np.unique(file["voxel"][...])
    assert 5 not in voxels and len(voxels) == small_mask().sum() - 1
    completed(study, f"{VOXELS} --sparsity-threshold 1 --first-permutation 4")
    assert json.loads((study / "out.json").read_text())["constant_voxels"] == 1


# -- voxel matrices and traits ------------------------------------------------------------------------------------


def test_damaged_voxel_matrix(study: Path) -> None:
    path = study / "brain.h5"
    path.write_bytes(path.read_bytes()[:-500])
    refused(study, VOXELS, INPUT, "brain.h5", ranks=(0,))


def test_voxel_matrix_of_another_kind(study: Path) -> None:
    with voxel_matrix(study) as file:
        file.attrs["format"] = "mpgls-kinship"
    refused(study, VOXELS, INPUT, "brain.h5 is an HDF5 file, but not a voxel matrix", ranks=(0,))
    (study / "brain.h5").write_text("voxels")
    refused(study, VOXELS, INPUT, "brain.h5", ranks=(0,))
    (study / "brain.h5").unlink()
    refused(study, VOXELS, STORAGE, "brain.h5", ranks=(0,))


def test_voxel_matrix_with_a_value_that_is_no_number(study: Path) -> None:
    with voxel_matrix(study) as file:
        file["voxels"][7, 11] = np.inf
    fid, iid = read_plink(study / "sim").ids[7]
    i, j, k = np.argwhere(small_mask())[11].tolist()
    refused(study, VOXELS, INPUT, "brain.h5", f"{fid} {iid}", f"voxel ({i}, {j}, {k})", "inf", ranks=(1, 4))


def test_trait_that_is_missing(study: Path) -> None:
    edit_line(study / "traits.tsv", 6, lambda fields: [*fields[:4], "NA", *fields[5:]])
    fid, iid = read_plink(study / "sim").ids[4]
    refused(study, TRAITS, INPUT, "traits.tsv", "'v2'", f"{fid} {iid}", "missing")


def test_coordinates_of_traits(study: Path) -> None:
    arguments = f"{TRAITS} --coordinates places.tsv"
    completed(study, arguments)
    (study / "out.snps.tsv").unlink()
    (study / "out.json").unlink()
    places = study / "places.tsv"
    text = places.read_text()
    edit_line(places, 3, lambda fields: [*fields[:3], "0"])
    refused(study, arguments, INPUT, "places.tsv", "v0", "v1", ranks=(0,))
    places.write_text(text)
    edit_line(places, 3, lambda fields: [*fields[:3], "one"])
    refused(study, arguments, INPUT, "places.tsv, line 3", "three whole numbers", ranks=(0,))
    places.write_text(text)
    edit_line(places, 3, lambda fields: [*fields[:3], "-3000000000"])
    refused(study, arguments, INPUT, "places.tsv, line 3", "not the indices of a voxel", ranks=(0,))
    places.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    refused(study, arguments, INPUT, "places.tsv", "v5", ranks=(0,))


# -- confounds and SNPs -------------------------------------------------------------------------------------------


def test_collinear_confound(study: Path) -> None:
    lines = [line.split("\t") for line in (study / "sim.covar.tsv").read_text().splitlines()]
    twice = [[*line, "double" if k == 0 else str(2 * float(line[3]))] for k, line in enumerate(lines)]
    (study / "sim.covar.tsv").write_text("\n".join("\t".join(line) for line in twice) + "\n")
    refused(study, COVAR, INPUT, "double")


def test_constant_confound(study: Path) -> None:
    lines = [line.split("\t") for line in (study / "sim.covar.tsv").read_text().splitlines()]
    lines = [[*line, "site" if k == 0 else "4"] for k, line in enumerate(lines)]
    (study / "sim.covar.tsv").write_text("\n".join("\t".join(line) for line in lines) + "\n")
    refused(study, COVAR, INPUT, "site")


def test_more_confounds_than_samples(study: Path) -> None:
    ids = read_plink(study / "sim").ids[:6]
    (study / "few.txt").write_text("".join(f"{fid} {iid}\n" for fid, iid in ids[:5]))
    refused(study, f"{COVAR} --keep few.txt", INPUT, "5 samples")


def test_snps_that_cannot_be_tested_have_a_note(study: Path) -> None:
    plink = read_plink(study / "sim")
    dosages = plink.dosages.copy()
    dosages[:, 3] = 2.0
    dosages[:, 4] = np.nan
    dosages[:, 7] = np.random.default_rng(7).integers(0, 3, len(dosages))
    write_genotypes(study / "sim", dosages)
    lines = (study / "sim.covar.tsv").read_text().splitlines()
    added = [f"{line}\t{value}" for line, value in zip(lines, ["snp", *dosages[:, 7].tolist()], strict=True)]
    (study / "sim.covar.tsv").write_text("\n".join(added) + "\n")
    completed(study, f"{COVAR} --sparsity-threshold 1")
    rows = read_rows(study / "out.snps.tsv")
    notes = {k: row["NOTE"] for k, row in enumerate(rows) if row["NOTE"] != "."}
    assert notes == {3: "monomorphic", 4: "all genotypes missing", 7: "collinear with the covariates"}
    assert all(rows[k]["T"] == rows[k]["FWE_P_LOG10P"] == "NA" for k in notes)


def test_truncated_bed(study: Path) -> None:
    bed = study / "sim.bed"
    bed.write_bytes(bed.read_bytes()[:-20])
    refused(study, VOXELS, INPUT, "sim.bed is truncated")


# -- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (f"vgwas --bfile sim {RUN}", ["--voxels", "--images", "--pheno"]),
        (f"{VOXELS} --images images.tsv --mask mask.nii.gz", ["--voxels", "--images"]),
        (f"vgwas --bfile sim --images images.tsv {RUN}", ["--mask"]),
        (f"{VOXELS} --coordinates places.tsv", ["--coordinates"]),
        (f"{VOXELS} --connectivity 8", ["8", "18"]),
        (f"{VOXELS} --sparsity-threshold 0", ["--sparsity-threshold", "0"]),
        (f"{VOXELS} --sparsity-threshold 1.5", ["--sparsity-threshold", "1.5"]),
        (f"{VOXELS} --sparsity-threshold nan", ["--sparsity-threshold", "nan"]),
        (f"{VOXELS} --permutations -1", ["--permutations", "-1"]),
        (f"{VOXELS} --tfce-step 0", ["--tfce-step"]),
        (f"{VOXELS} --tfce-step nan", ["--tfce-step", "nan"]),
        (f"{VOXELS} --blocks site", ["--blocks", "--covar"]),
        (f"{VOXELS} --team-size 3", ["--team-size", "3"]),
        (f"{TRAITS} --maps 2", ["--maps"]),
        (f"{VOXELS} --first-permutation 0", ["--first-permutation", "0"]),
        (f"{VOXELS} --seed {2**63}", ["--seed", "2^63"]),
        (f"{VOXELS} --permutations {2**63}", ["permutation", "2^63"]),
    ],
)
def test_options(study: Path, arguments: str, parts: list[str]) -> None:
    refused(study, arguments, USAGE, *parts, ranks=(0,))


def test_column_of_blocks_that_does_not_exist(study: Path) -> None:
    refused(study, f"{COVAR} --blocks site", USAGE, "sim.covar.tsv", "no column 'site'")


def test_nobody_has_a_block(study: Path) -> None:
    rows = [f"{fid}\t{iid}\tNA\n" for fid, iid in read_plink(study / "sim").ids]
    (study / "sites.txt").write_text("".join(["FID\tIID\tsite\n", *rows]))
    refused(
        study, f"{VOXELS} --blocks site --blocks-file sites.txt", INPUT, "sites.txt", "'site'", "no analysed sample"
    )


def test_the_log_says_where_people_and_snps_are_lost(study: Path) -> None:
    with voxel_matrix(study) as file:
        file["samples"][4] = [b"other", b"other"]
    log = completed(study, f"{VOXELS} --maf 0.1")
    tested = sum(row["NOTE"] == "." for row in read_rows(study / "out.snps.tsv"))
    assert "37 in the genotypes > 37 after --keep, --remove and --mind > 36 in brain.h5\n" in log
    assert 0 < tested < 53 and f"{tested} of 53 SNPs tested, {53 - tested} dropped by --maf: out.snps.tsv" in log


def test_too_little_memory(study: Path) -> None:
    refused(study, f"{VOXELS} --memory 0.01", MEMORY, "--memory")


# -- earlier results ----------------------------------------------------------------------------------------------


def test_voxels_of_earlier_images_are_not_taken_for_those_of_the_present_ones(study: Path) -> None:
    command = f"{IMAGES} --sparsity-threshold 1"
    completed(study, command)
    assert not (study / "out.extracted.h5").exists()
    expected = (study / "out.snps.tsv").read_bytes()
    with voxel_matrix(study) as file:
        file["voxels"][...] = np.random.default_rng(2).standard_normal(file["voxels"].shape)
    stale = (study / "brain.h5").read_bytes()

    def leave() -> None:
        """As a run that was killed leaves it."""
        Outputs(str(study / "out"), "vgwas", "", ()).claim([".extracted.h5"])
        (study / "out.extracted.h5").write_bytes(stale)

    leave()
    good = (study / "images.tsv").read_text()
    (study / "images.tsv").write_text("")
    check(mpgls(0, command, study), INPUT, "images.tsv")
    (study / "images.tsv").write_text(good)
    leave()
    completed(study, f"{command} --resume")
    assert (study / "out.snps.tsv").read_bytes() == expected


def test_further_permutations_without_earlier_ones(study: Path) -> None:
    refused(study, f"{VOXELS} --first-permutation 4", USAGE, "there is no out.maxima.h5")


def test_further_permutations_that_do_not_fit_the_earlier_ones(study: Path) -> None:
    completed(study, VOXELS)
    for change in ("--seed 2", "--connectivity 26"):
        check(mpgls(0, f"{VOXELS} --first-permutation 4 {change}", study), INPUT, "out.maxima.h5", "options")
    for first in (2, 6):
        ended = mpgls(0, f"{VOXELS} --first-permutation {first}", study)
        check(ended, USAGE, "out.maxima.h5 has 3 permutations", "--first-permutation 4")
    left = {path.name for path in study.glob("out.*")}
    assert left >= {"out.snps.tsv", "out.json", "out.voxels.h5", "out.maxima.h5"}, "of a finished run nothing is lost"
    path = study / "out.maxima.h5"
    path.write_bytes(path.read_bytes()[:300])
    check(mpgls(2, f"{VOXELS} --first-permutation 4", study), INPUT, "out.maxima.h5", "it has 300 of")
