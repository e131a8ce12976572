"""Bad input of ``mpgls low-rank``, from outside: similarity SNPs, given h2, stages, and one rank that fails alone.

One clear sentence from one rank, the right exit code, no hang, and no file that looks finished.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from launch import MPIRUN
from refusals import INPUT, MEMORY, NUMERICAL, STORAGE, USAGE, check, edit_line, one_rank_fails, refused
from resident import mpgls, must_succeed
from small_study import read_plink, write_genotypes, write_lines

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")

PLAIN = "low-rank --bfile sim --pheno sim.pheno.tsv --no-plots --out out"
SCAN = f"{PLAIN} --similarity-every 3"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated study, and a second fileset of the same people."""
    folder = tmp_path_factory.mktemp("good")
    must_succeed(0, "simulate --samples 61 --snps 103 --chromosomes 3 --seed 3 --out sim", folder)
    (folder / "sim.causal.tsv").unlink()
    for suffix in ("bed", "bim", "fam"):
        shutil.copy(folder / f"sim.{suffix}", folder / f"other.{suffix}")
    return folder


@pytest.fixture
def study(good: Path, tmp_path: Path) -> Path:
    """A copy of the study for one test to spoil."""
    return shutil.copytree(good, tmp_path / "study")


# -- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "part", "ranks"),
    [
        (PLAIN, USAGE, "one of --similarity-snps, --similarity-every and --similarity-count", (0, 2)),
        (f"{SCAN} --similarity-count 9", USAGE, "one of --similarity-snps, --similarity-every", (0,)),
        (f"{PLAIN} --similarity-every 0", USAGE, "--similarity-every must be at least 1, not 0", (0,)),
        (f"{PLAIN} --similarity-count -3", USAGE, "--similarity-count must be at least 1, not -3", (0,)),
        (f"{PLAIN} --similarity-count 104", USAGE, "--similarity-count 104 is more than the 103 SNPs", (1, 2)),
        (f"{SCAN} --stage 3", USAGE, "--stage must be one of 0, 1, 2, 4, not 3", (0,)),
        (f"{SCAN} --h2 1", USAGE, "--h2 must be at least 0 and below 1", (0,)),
        (f"{SCAN} --h2 0.5 --h2-file h2.tsv", USAGE, "give either --h2 or --h2-file", (0,)),
        (f"{SCAN} --block-size 0", USAGE, "--block-size must be at least 1", (0,)),
        (f"{SCAN} --team-size 3", USAGE, "--team-size must be from 1 to the number of ranks, 2, not 3", (2,)),
        (f"{SCAN} --memory 0.01", MEMORY, "--memory allows 0.01: the program alone takes", (1, 2)),
        (f"{SCAN} --form dense --memory 0.01", MEMORY, "--memory allows 0.01: the program alone takes", (2,)),
        (f"{SCAN} --pheno-name trait9", USAGE, "sim.pheno.tsv has no column 'trait9'", (2,)),
        (f"{SCAN} --chr 9", INPUT, "no SNP", (2,)),
    ],
)
def test_options(study: Path, command: str, code: int, part: str, ranks: tuple[int, ...]) -> None:
    refused(study, command, code, part, ranks=ranks)


# -- similarity SNPs ----------------------------------------------------------------------------------------------


def test_files_that_are_not_there(study: Path) -> None:
    refused(study, f"{SCAN} --similarity-bfile none", STORAGE, "none.bed", "No such file")
    refused(study, f"{PLAIN} --similarity-snps none.txt", STORAGE, "none.txt", "No such file", ranks=(1,))
    refused(study, f"{SCAN} --h2-file none.tsv", STORAGE, "none.tsv", "No such file", ranks=(1,))


def test_a_list_of_snps_that_no_file_has(study: Path) -> None:
    write_lines(study / "list.txt", ["rs900", "rs901"])
    refused(study, f"{PLAIN} --similarity-snps list.txt", INPUT, "no SNP")


def test_a_damaged_fileset_of_similarity_snps(study: Path) -> None:
    bed = study / "other.bed"
    bed.write_bytes(bed.read_bytes()[:-20])
    refused(study, f"{SCAN} --similarity-bfile other", INPUT, "other.bed is truncated", "103 SNPs of 61 samples")


def test_a_sample_without_similarity_genotypes(study: Path) -> None:
    edit_line(study / "other.fam", 17, lambda fields: [fields[0], "somebody", *fields[2:]])
    fid, iid = (study / "sim.fam").read_text().splitlines()[16].split()[:2]
    what = f"other.fam has no genotypes of sample {fid} {iid}, which is analysed"
    refused(study, f"{SCAN} --similarity-bfile other", INPUT, what, ranks=(1, 2, 4))


def test_one_chromosome_has_every_similarity_snp(study: Path) -> None:
    rows = [line.split() for line in (study / "sim.bim").read_text().splitlines()]
    write_lines(study / "list.txt", [row[1] for row in rows if row[0] == "2"])
    command = f"{PLAIN} --similarity-snps list.txt"
    refused(study, command, INPUT, "every similarity SNP is on chromosome 2", "--no-loco", ranks=(1, 3))
    must_succeed(2, f"{command} --no-loco", study)


@pytest.mark.parametrize("label", ["0", "."])
def test_a_tested_snp_without_a_chromosome(study: Path, label: str) -> None:
    edit_line(study / "sim.bim", 50, lambda fields: [label, *fields[1:]])
    refused(study, SCAN, INPUT, "sim.bim, line 50", "has no chromosome", repr(label))
    must_succeed(2, f"{SCAN} --no-loco", study)


def test_no_similarity_snp_varies(study: Path) -> None:
    write_genotypes(study / "other", np.ones((61, 103)))
    refused(study, f"{SCAN} --similarity-bfile other", INPUT, "no similarity SNP is left", ranks=(1, 4))


# -- h2 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("TRAIT CHR H2\ntrait1 1 high\n", ("h2.tsv, line 2", "'high'")),
        ("TRAIT H2\ntrait1 0.5\n", ("h2.tsv, line 1", "TRAIT, CHR and H2")),
        ("TRAIT CHR H2\nother 1 0.5\n", ("h2.tsv has none of the", "trait1")),
    ],
)
def test_h2_file(study: Path, text: str, parts: tuple[str, ...]) -> None:
    (study / "h2.tsv").write_text(text)
    refused(study, f"{SCAN} --h2-file h2.tsv", INPUT, *parts)
    assert not list(study.glob("out.stage*"))  # read before hours of work


# -- stages and output --------------------------------------------------------------------------------------------


def test_a_stage_before_its_time(study: Path) -> None:
    for stage, needed in ((1, 0), (2, 0), (4, 0)):
        command = f"{SCAN} --stage {stage}"
        refused(study, command, INPUT, f"stage {stage} needs out.stage{needed}.h5", f"run --stage {needed} first")
    must_succeed(2, f"{SCAN} --stage 0", study)
    refused(study, f"{SCAN} --stage 2", INPUT, "stage 2 needs out.stage1.h5", "run --stage 1 first", ranks=(1, 3))
    refused(study, f"{SCAN} --form dense --stage 1", USAGE, "it has no stages", "--form low-rank")
    other = f"{SCAN.replace('every 3', 'every 4')} --stage 1"
    refused(study, other, INPUT, "stage 1 needs out.stage0.h5", "other inputs or options")
    dosages = read_plink(study / "sim").dosages
    write_genotypes(study / "sim", np.where(dosages == 2, 1, dosages))
    refused(study, f"{SCAN} --stage 1", INPUT, "stage 1 needs out.stage0.h5", "other inputs or options")


def test_output_that_cannot_be_written(study: Path) -> None:
    (study / "out.stage1.h5").mkdir()
    refused(study, SCAN, STORAGE, "out.stage1.h5", ranks=(1, 2))
    refused(study, SCAN.replace("--out out", "--out none/out"), STORAGE, "cannot write none/out: there is no directory")


def test_an_input_is_not_overwritten(study: Path) -> None:
    for name in ("out.trait1.tsv", "out.h5"):
        (study / name).write_bytes((study / "sim.pheno.tsv").read_bytes())
        refused(study, SCAN.replace("sim.pheno.tsv", name), USAGE, f"overwrite its input {name}")
        assert (study / name).read_bytes() == (study / "sim.pheno.tsv").read_bytes()


def test_a_stopped_run_keeps_its_blocks(study: Path) -> None:
    must_succeed(2, f"{SCAN} --block-size 16", study)
    assert "nothing is left to do" in must_succeed(2, f"{SCAN} --block-size 8 --resume", study).out
    (study / "out.json").unlink()
    check(mpgls(2, f"{SCAN} --block-size 8 --resume", study), INPUT, "blocks of 16 SNPs", "--block-size 8")


def test_a_stage_that_has_ended_is_not_run_again(study: Path) -> None:
    must_succeed(2, f"{SCAN} --stage 0", study)
    made = (study / "out.stage0.h5").stat().st_mtime_ns
    assert "nothing is left to do" in must_succeed(2, f"{SCAN} --stage 0 --resume", study).out
    assert "stage 0: taken from out.stage0.h5" in must_succeed(2, f"{SCAN} --stage 1 --resume", study).out
    assert (study / "out.stage0.h5").stat().st_mtime_ns == made


# -- one rank fails alone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "error", "code", "part"),
    [
        ("stream.reader BlockReader __init__", "StorageError('cannot read sim.bed: gone')", STORAGE, "sim.bed: gone"),
        ("stream.reader BlockReader _finish", "StorageError('cannot read sim.bed: gone')", STORAGE, "sim.bed: gone"),
        ("study.genotypes Decoder decode", "MemoryError('buffer')", MEMORY, "rank 1 is out of memory"),
        (
            "engine.gram GramFile read",
            "StorageError('cannot read out.stage1.h5')",
            STORAGE,
            "out.stage1.h5",
        ),
        ("engine.low_rank LowRankCovariance maximise", "NumericalError('no optimum')", NUMERICAL, "no optimum"),
        ("engine.low_rank_scan TestedSnps sums", "RuntimeError('surprise')", 1, "failed unexpectedly"),
        ("stream.writer UnitWriter write", "OSError(28, 'No space left', 'out.h5')", STORAGE, "out.h5: No space"),
    ],
)
def test_one_rank_fails_alone(study: Path, where: str, error: str, code: int, part: str) -> None:
    one_rank_fails(study, SCAN, where, error, code, part)


def test_the_study_is_good(study: Path) -> None:
    """What the tests above spoil works as it is."""
    must_succeed(2, f"{SCAN} --similarity-bfile other", study)
    assert len((study / "out.trait1.tsv").read_text().splitlines()) == 1 + len(read_plink(study / "sim").snps)
