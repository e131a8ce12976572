"""Bad input, from outside.

One clear sentence from one rank, the right exit code, no hang, and no file that looks finished.
"""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path
from types import ModuleType

import h5py
import launch
import numpy as np
import pytest
import resident
from launch import MPIRUN
from refusals import INPUT, MEMORY, NUMERICAL, STORAGE, USAGE, check, edit_line, one_rank_fails, refused
from resident import mpgls, must_succeed
from small_study import unchecked

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")

SCAN = "single-trait --bfile sim --pheno sim.pheno.tsv --grm K.h5 --no-plots --out out"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated study with its kinship."""
    folder = tmp_path_factory.mktemp("good")
    must_succeed(0, "simulate --samples 61 --snps 203 --chromosomes 3 --seed 3 --out sim", folder)
    must_succeed(0, "kinship --bfile sim --out K", folder)
    for name in ("K.json", "K.log", "sim.json", "sim.log", "sim.causal.tsv"):
        (folder / name).unlink()
    return folder


@pytest.fixture
def study(good: Path, tmp_path: Path) -> Path:
    """A copy of the study for one test to spoil; its own files may look like results."""
    return shutil.copytree(good, tmp_path / "study")


def read_K(study: Path) -> np.ndarray:
    with h5py.File(study / "K.h5", "r") as file:
        return file["kinship"][...]


def write_K(study: Path, K: np.ndarray) -> None:
    with unchecked(study / "K.h5") as file:
        file["kinship"][...] = K


# -- genotypes ----------------------------------------------------------------------------------------------------


def test_truncated_bed(study: Path) -> None:
    bed = study / "sim.bed"
    bed.write_bytes(bed.read_bytes()[:-20])
    refused(study, SCAN, INPUT, "sim.bed is truncated", "201 whole SNPs", "203 SNPs of 61 samples", ranks=(1, 2, 4))
    refused(study, "kinship --bfile sim --out out", INPUT, "sim.bed is truncated")


@pytest.mark.parametrize(
    ("header", "complaint"),
    [(b"\x00\x1b\x01", "sim.bed is not a PLINK 1 .bed"), (b"\x6c\x1b\x00", "sim.bed is not SNP-major")],
)
def test_header_of_the_bed(study: Path, header: bytes, complaint: str) -> None:
    bed = study / "sim.bed"
    bed.write_bytes(header + bed.read_bytes()[3:])
    refused(study, SCAN, INPUT, complaint)


@pytest.mark.parametrize(
    ("name", "want"), [("sim.bim", "202 SNPs of 61 samples"), ("sim.fam", "203 SNPs of 53 samples")]
)
def test_bim_or_fam_disagrees_with_the_bed(study: Path, name: str, want: str) -> None:
    lines = (study / name).read_text().splitlines()[: int(want.split()[0 if name == "sim.bim" else 3])]
    (study / name).write_text("\n".join(lines) + "\n")
    refused(study, SCAN, INPUT, "sim.bed is too long", want)


def test_a_trait_that_the_covariates_explain(study: Path) -> None:
    named = f"{SCAN} --covar sim.pheno.tsv --covar-name trait1 --pheno-name trait1"
    refused(study, named, INPUT, "trait 'trait1' is explained entirely by the covariates", "'trait1'")
    refused(study, f"{SCAN} --pcs 60", USAGE, "--pcs 60", "61 samples, too few")
    refused(study, f"{SCAN} --eigen none.h5", USAGE, "either --grm or --eigen", ranks=(0,))


def test_compressed_genotypes(study: Path) -> None:
    """The .bed is read at random places, so it cannot be compressed; text can (test_text_files)."""
    content = (study / "sim.bed").read_bytes()
    (study / "sim.bed").write_bytes(gzip.compress(content))
    refused(study, SCAN, INPUT, "sim.bed is compressed: unpack it with gunzip")
    (study / "sim.bed").write_bytes(content)


def test_malformed_bim(study: Path) -> None:
    edit_line(study / "sim.bim", 17, lambda fields: [*fields[:3], "here", *fields[4:]])
    refused(study, SCAN, INPUT, "sim.bim, line 17", "'here'")


def test_a_missing_file_is_named(study: Path) -> None:
    refused(study, SCAN.replace("--bfile sim", "--bfile none"), STORAGE, "none.bed", "No such file")
    for option, name in (("--pheno sim.pheno.tsv", "--pheno none.tsv"), ("--grm K.h5", "--grm none.h5")):
        refused(study, SCAN.replace(option, name), STORAGE, "none.", ranks=(0,))
    for option in ("--covar", "--keep", "--extract"):
        refused(study, f"{SCAN} {option} none.txt", STORAGE, "none.txt", ranks=(0,))


def test_no_snp_is_left(study: Path) -> None:
    refused(study, f"{SCAN} --chr 9", INPUT, "no SNP")
    refused(study, "kinship --bfile sim --chr 9 --out out", INPUT, "no SNP")


# -- samples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sim.fam", "sim.pheno.tsv"])
def test_duplicate_sample(study: Path, name: str) -> None:
    path = study / name
    first, line = (1, 9) if name == "sim.fam" else (2, 9)
    ids = path.read_text().splitlines()[first - 1].split()[:2]
    edit_line(path, line, lambda fields: [*ids, *fields[2:]])
    refused(study, SCAN, INPUT, name, ids[1], "twice", f"lines {first} and {line}")


def test_no_common_samples(study: Path) -> None:
    pheno = study / "sim.pheno.tsv"
    header, *lines = pheno.read_text().splitlines()
    pheno.write_text("\n".join([header, *("other\t" + line.split("\t", 1)[1] for line in lines)]) + "\n")
    three_each = ("F1 F1_1", "F1 F1_2", "F1 F1_3", "other F1_1", "other F1_2", "other F1_3")
    refused(study, SCAN, INPUT, "no samples in common", "sim.pheno.tsv", *three_each, ranks=(1, 2, 4))


def test_kinship_with_other_samples(study: Path) -> None:
    with unchecked(study / "K.h5") as file:
        file["fid"][...] = np.array([f"G{i}" for i in range(61)], dtype=object)
    refused(study, SCAN, INPUT, "the kinship", "no samples in common", "F1 F1_1", "G0 F1_1", "G2 F1_3")


def test_too_few_samples(study: Path) -> None:
    (study / "two.txt").write_text("F1 F1_1\nF1 F1_2\n")
    refused(study, f"{SCAN} --keep two.txt", INPUT, "2 samples are too few")


# -- traits and covariates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sim.pheno.tsv", "sim.covar.tsv"])
def test_text_in_a_numeric_column(study: Path, name: str) -> None:
    edit_line(study / name, 5, lambda fields: [*fields[:2], "tall", *fields[3:]])
    column = "'trait1'" if name == "sim.pheno.tsv" else "'covar1'"
    refused(study, f"{SCAN} --covar sim.covar.tsv", INPUT, f"{name}, line 5, column {column}", "'tall'")


def covariates(study: Path, columns: dict[str, np.ndarray]) -> str:
    """SCAN with a covariate table of these columns."""
    ids = ["\t".join(line.split()[:2]) for line in (study / "sim.fam").read_text().splitlines()]
    rows = ["\t".join([name, *(f"{column[i]:.17g}" for column in columns.values())]) for i, name in enumerate(ids)]
    (study / "made.txt").write_text("\n".join(["\t".join(["FID", "IID", *columns]), *rows]) + "\n")
    return f"{SCAN} --covar made.txt"


def test_the_option_that_drops_everybody_is_named(study: Path) -> None:
    bed = bytearray((study / "sim.bed").read_bytes())
    row = b"\x55" * 15 + b"\x01"  # every genotype of the 61 missing, and nothing after the last
    bed[3:] = row * ((len(bed) - 3) // len(row))
    (study / "sim.bed").write_bytes(bed)
    refused(study, f"{SCAN} --mind 0.5", INPUT, "no sample to analyse is left after --mind")
    refused(
        study, f"{SCAN} --mind 0.5 --remove sim.fam", INPUT, "no sample to analyse is left after --remove and --mind"
    )
    assert "--keep" not in mpgls(0, SCAN.replace("single-trait", "multi-trait"), study).out


def test_trait_that_cannot_name_a_file(study: Path) -> None:
    table = study / "sim.pheno.tsv"
    text = table.read_text()
    for name in ("LDL/HDL", "."):
        table.write_text(text.replace("trait1", name, 1))
        for command in (SCAN, "low-rank --bfile sim --pheno sim.pheno.tsv --similarity-every 9 --out out"):
            refused(study, command, INPUT, f"sim.pheno.tsv: trait {name!r} cannot be part of a file's name")


def test_constant_covariates(study: Path) -> None:
    columns = {"age": np.arange(61.0), "batch": np.full(61, 2.0), "site": np.full(61, -1.0)}
    refused(study, covariates(study, columns), INPUT, "'batch' and 'site' are constant")


def test_collinear_covariates(study: Path) -> None:
    age, dose = np.arange(61.0), np.arange(61.0) ** 2 % 7
    columns = {"age": age, "dose": dose, "both": age - 2 * dose + 3}
    refused(study, covariates(study, columns), INPUT, "collinear", "'both' is a linear combination", "'age'", "'dose'")


def test_constant_trait(study: Path) -> None:
    lines = (study / "sim.fam").read_text().splitlines()
    (study / "sim.fam").write_text("\n".join(" ".join([*line.split()[:5], "1.5"]) for line in lines) + "\n")
    refused(study, SCAN.replace("--pheno sim.pheno.tsv ", ""), INPUT, "trait 'pheno' is constant")


# -- kinship ------------------------------------------------------------------------------------------------------


def test_kinship_of_the_wrong_size(study: Path) -> None:
    with unchecked(study / "K.h5") as file:
        for name in ("fid", "iid"):
            values = file[name][:60]
            del file[name]
            file.create_dataset(name, data=values)
    refused(study, SCAN, INPUT, "K.h5: the matrix is 61 x 61, but there are 60 FIDs")

    np.savetxt(study / "K.cXX.txt", np.eye(61)[:, :60])
    gemma = SCAN.replace("K.h5", "K.cXX.txt --grm-id sim.fam")
    refused(study, gemma, INPUT, "K.cXX.txt has 61 rows and 60 columns, but sim.fam lists 61")

    (study / "G.grm.id").write_text("\n".join(f"F I{i}" for i in range(61)) + "\n")
    (study / "G.grm.bin").write_bytes(bytes(4 * 60 * 61 // 2))
    refused(study, SCAN.replace("K.h5", "G"), INPUT, "G.grm.bin holds 60 samples, but G.grm.id lists 61")


def test_kinship_that_is_not_symmetric(study: Path) -> None:
    K = read_K(study)
    K[7, 40] += 0.02
    write_K(study, K)
    multi = SCAN.replace("single-trait", "multi-trait").replace("--out out", "--out many")
    for command in (SCAN, multi, "eigen --grm K.h5 --out E"):
        refused(study, command, INPUT, "K.h5 is not symmetric: the row and the column of sample", ranks=(1, 3))


def test_truncated_kinship(study: Path) -> None:
    path = study / "K.h5"
    path.write_bytes(path.read_bytes()[:-5000])
    refused(study, SCAN, INPUT, "K.h5", "truncated")


def test_kinship_with_nan(study: Path) -> None:
    K = read_K(study)
    K[40, 7] = K[7, 40] = np.nan
    write_K(study, K)
    refused(study, SCAN, INPUT, "K.h5", "F2_4", "F11_1", "is not a finite number", ranks=(1, 2, 4))


def test_kinship_that_is_not_positive_semidefinite(study: Path) -> None:
    """At a given h2, and where the trait (the leading eigenvectors) drives REML towards h2 = 1."""
    K = read_K(study)
    signs = (-1.0) ** np.arange(61)
    K -= 0.1 * np.outer(signs, signs) / 61
    write_K(study, K)
    refused(study, f"{SCAN} --h2 0.99", NUMERICAL, "not positive semidefinite", "h2 = 0.99", ranks=(1, 2, 4))
    leading = np.linalg.eigh(K)[1][:, -6:].sum(axis=1)
    lines = (study / "sim.fam").read_text().splitlines()
    fam = [" ".join([*line.split()[:5], f"{value:.9g}"]) for line, value in zip(lines, leading, strict=True)]
    (study / "sim.fam").write_text("\n".join(fam) + "\n")
    from_fam = SCAN.replace("--pheno sim.pheno.tsv", "")
    refused(study, from_fam, NUMERICAL, "not positive semidefinite", "near the REML optimum")


def test_kinship_of_negative_diagonal(study: Path) -> None:
    write_K(study, -read_K(study))
    refused(study, SCAN, INPUT, "K.h5", "mean diagonal", "not positive")


# -- one chromosome left out --------------------------------------------------------------------------------------


@pytest.fixture
def with_sums(study: Path) -> Path:
    """The study with a kinship that has the sums of its three chromosomes."""
    must_succeed(0, "kinship --bfile sim --loco --out S", study)
    (study / "S.json").unlink()
    return study


LOCO = SCAN.replace("K.h5", "S.h5") + " --loco"


def test_kinship_in_which_no_chromosome_can_be_left_out(with_sums: Path) -> None:
    must_succeed(0, "kinship --bfile sim --grm-bin --chr 2 --loco --out G", with_sums)
    refused(with_sums, LOCO.replace("S.h5", "G.h5"), INPUT, "G.h5", "are on chromosome 2, so nothing is left")
    for command in (LOCO, LOCO.replace("single-trait", "multi-trait")):
        refused(with_sums, command.replace("S.h5", "G.grm.bin"), INPUT, "G.grm.bin has no sums", "mpgls kinship --loco")
        refused(with_sums, command.replace("--grm S.h5", "--eigen E.h5"), USAGE, "give --grm", ranks=(0,))


def test_snp_without_chromosome(with_sums: Path) -> None:
    edit_line(with_sums / "sim.bim", 150, lambda fields: ["0", *fields[1:]])
    for command in (LOCO, LOCO.replace("single-trait", "multi-trait"), "kinship --bfile sim --loco --out out"):
        refused(with_sums, command, INPUT, "sim.bim, line 150", "has no chromosome", ranks=(1, 2, 4))
    must_succeed(2, f"{LOCO} --chr 1-3", with_sums)


def test_sums_that_are_damaged(with_sums: Path) -> None:
    path = with_sums / "S.h5"
    with unchecked(path) as file:
        file["loco/1"][5, 3] = np.inf
    refused(with_sums, LOCO, INPUT, "S.h5", "F2_2", "F1_4", "is not a finite number", ranks=(1, 2))
    with unchecked(path) as file:
        del file["loco/1"]
        file["loco/1"] = np.zeros((60, 60))
        file["loco/1"].attrs.update({"chromosome": "2", "snps": 5})
    refused(with_sums, LOCO, INPUT, "S.h5: /loco/1 must be stored contiguously", "61 x 61")


def test_heritabilities_by_chromosome(with_sums: Path) -> None:
    table = with_sums / "h2.txt"
    table.write_text("TRAIT H2\ntrait1 0.5\n")
    refused(
        with_sums, f"{LOCO} --h2-file h2.txt", INPUT, "h2.txt, line 1: expected a header with the columns TRAIT, CHR"
    )
    table.write_text("TRAIT CHR H2\ntrait1 2 1.5\n")
    refused(
        with_sums, f"{LOCO} --h2-file h2.txt", INPUT, "h2.txt, line 2: h2 of trait 'trait1', chromosome 2, is '1.5'"
    )


# -- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "code", "part", "ranks"),
    [
        ("--team-size 3", USAGE, "--team-size must be from 1 to the number of ranks", (1, 2)),
        ("--team-size many", USAGE, "--team-size must be auto or a number of ranks, not 'many'", (0,)),
        ("--block-size 0", USAGE, "--block-size must be at least 1", (0,)),
        ("--pheno-name trait9", USAGE, "sim.pheno.tsv has no column 'trait9'; its columns are trait1", (2,)),
        ("--covar-name age", USAGE, "--covar-name needs --covar", (0,)),
        ("--maf half", USAGE, "--maf", (0,)),
        ("--h2 1.5", USAGE, "--h2", (0,)),
        ("--h2 0.5 --h2-file t.tsv", USAGE, "either --h2 or --h2-file", (0,)),
        ("--h2-file none.tsv", STORAGE, "none.tsv", (2,)),
        ("--loco", INPUT, "K.h5 has no sums of single chromosomes, so none can be left out: make the kinship", (1, 2)),
        ("--memory -1", USAGE, "--memory must be positive", (0,)),
        ("--memory 0.01", MEMORY, "the program alone takes", (1, 2)),
        ("--maf 0.7", USAGE, "--maf", (0,)),
        ("--geno 2", USAGE, "--geno", (0,)),
        ("--nonsense", USAGE, "--nonsense", (0,)),
    ],
)
def test_options(study: Path, more: str, code: int, part: str, ranks: tuple[int, ...]) -> None:
    refused(study, f"{SCAN} {more}", code, part, ranks=ranks)


def test_blocks_are_no_larger_than_the_study(study: Path) -> None:
    for command in (SCAN.replace("single-trait", "multi-trait"), "kinship --bfile sim --out K2"):
        ended = mpgls(2, f"{command} --block-size 1000000000", study)
        assert ended.code == 0, ended.err


def test_commands(study: Path) -> None:
    refused(study, "multiply --out out", USAGE, "'multiply'", "single-trait", ranks=(1, 4))
    for arguments, part in (
        ("", "no command was given"),
        (SCAN.replace("--grm K.h5", ""), "--grm"),
        ("kinship --bfile sim --out out --block-size 0", "--block-size"),
    ):
        refused(study, arguments, USAGE, part, ranks=(0,))
    refused(study, "simulate --samples 1 --snps 5 --out out", USAGE, "--samples")


@pytest.mark.parametrize(
    ("started", "ranks", "arguments"),
    [
        (launch, 4, "--help"),
        (launch, 1, "single-trait --help"),
        (resident, 4, "single-trait --help"),
        (resident, 4, "--version"),
    ],
)
def test_help_is_printed_once(tmp_path: Path, started: ModuleType, ranks: int, arguments: str) -> None:
    ended = started.must_succeed(ranks, arguments, tmp_path)
    assert ended.out.count("usage:" if "help" in arguments else "mpgls ") == 1
    assert ended.err == ""


def test_another_mpi_started_the_ranks(study: Path) -> None:
    """P programs that each believe to be alone: rank 0 of the launcher speaks, every one ends."""
    for rank, spoken in ((0, 1), (2, 0)):
        settings = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": str(rank)}
        ended = launch.mpgls(0, SCAN, study, **settings)
        assert ended.code == USAGE
        assert len(ended.sentences) == spoken
        assert not spoken or "the launcher started 4 ranks" in ended.sentences[0]


# -- output -------------------------------------------------------------------------------------------------------


def test_unwritable_output(study: Path) -> None:
    elsewhere = SCAN.replace("--out out", "--out none/out")
    refused(study, elsewhere, STORAGE, "cannot write none/out: there is no directory", ranks=(1, 2))
    for command in ("kinship --bfile sim", "simulate --samples 9 --snps 20"):
        refused(study, f"{command} --out none/out", STORAGE, "cannot write none/out")
    (study / "out.log").mkdir()
    refused(study, SCAN, STORAGE, "cannot write out.log")
    refused(study, SCAN.replace("--out out", "--out ./"), USAGE, "--out")
    if os.getuid():
        (study / "closed").mkdir(mode=0o500)
        refused(study, SCAN.replace("--out out", "--out closed/out"), STORAGE, "no permission in")
    elif Path("/proc/self").exists():  # root may write everywhere, except where nothing can be written
        refused(study, SCAN.replace("--out out", "--out /proc/out"), STORAGE, "/proc/out", ranks=(1, 2))


def test_scratch_directory_is_looked_at_first(study: Path) -> None:
    command = SCAN.replace("single-trait", "multi-trait")
    for name in ("none", "sim.bim"):
        refused(study, f"{command} --scratch {name}", STORAGE, f"--scratch {name}: there is no such directory")


def test_an_input_is_not_overwritten(study: Path) -> None:
    (study / "sim.covar.tsv").rename(study / "sim.pheno.tsv")  # where the table of the .fam's trait would go
    before = {path.name: path.read_bytes() for path in study.iterdir()}
    refused(study, SCAN.replace("--out out", "--out K"), USAGE, "overwrite its input K.h5", ranks=(1, 2))
    from_fam = SCAN.replace("--pheno sim.pheno.tsv", "--covar sim.pheno.tsv").replace("--out out", "--out sim")
    refused(study, from_fam, USAGE, "overwrite its input sim.pheno.tsv")
    assert all((study / name).read_bytes() == content for name, content in before.items())


def test_a_failed_run_leaves_no_table_of_an_earlier_one(study: Path) -> None:
    must_succeed(2, SCAN, study)
    assert (study / "out.trait1.tsv").exists()
    K = read_K(study)
    K[40, 7] = K[7, 40] = np.nan
    write_K(study, K)
    check(mpgls(2, SCAN, study), INPUT, "is not a finite number")
    assert not (study / "out.trait1.tsv").exists()
    assert not (study / "out.json").exists()


# -- one rank fails alone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "error", "code", "part"),
    [
        ("stream.reader BlockReader __init__", "StorageError('cannot read sim.bed: gone')", STORAGE, "sim.bed: gone"),
        ("stream.reader BlockReader _finish", "StorageError('cannot read sim.bed: gone')", STORAGE, "sim.bed: gone"),
        ("stream.reader BlockReader _finish", "RuntimeError('surprise')", 1, "failed unexpectedly"),
        ("stream.reader BlockReader __init__", "RuntimeError('surprise')", 1, "failed unexpectedly"),
        ("stream.writer UnitWriter write", "OSError(28, 'No space left', 'out.h5')", STORAGE, "out.h5: No space"),
        ("study.genotypes Decoder decode", "MemoryError('buffer')", MEMORY, "rank 1 is out of memory"),
    ],
)
@pytest.mark.parametrize("command", [SCAN, "kinship --bfile sim --block-size 50 --out out"])
def test_one_rank_fails_alone(study: Path, where: str, error: str, code: int, part: str, command: str) -> None:
    if command != SCAN and ("UnitWriter" in where or "Runtime" in error):
        pytest.skip("the kinship does not get there, or it is tested with the scan")
    one_rank_fails(study, command, where, error, code, part)
    assert command == SCAN or not (study / "out.h5").exists()
