"""Groups of options that several commands share, and the configs made of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from mpgls.errors import UsageError


def add_command(commands: Any, name: str, summary: str, example: str, make: Callable[..., Any]) -> Any:
    """A parser of ``mpgls NAME``, whose module is commands/NAME.py; ``make`` turns what it parsed into a config."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(module=f"mpgls.commands.{name.replace('-', '_')}", make=make)
    return parser


def genotype_options(parser: Any) -> None:
    """PLINK files and the filters of samples and SNPs."""
    group = parser.add_argument_group("genotypes and filters")
    group.add_argument("--bfile", required=True, metavar="PREFIX", help="PLINK 1 files PREFIX.bed, .bim and .fam")
    group.add_argument("--keep", metavar="FILE", help="analyse only these samples (FID IID a line)")
    group.add_argument("--remove", metavar="FILE", help="leave these samples out")
    group.add_argument("--mind", type=float, default=1.0, metavar="SHARE", help="largest missing share of a sample")
    group.add_argument("--chr", metavar="LIST", help="chromosomes, such as 1-4,X")
    group.add_argument("--extract", metavar="FILE", help="analyse only these SNPs (IDs separated by white space)")
    group.add_argument("--exclude", metavar="FILE", help="leave these SNPs out")
    group.add_argument("--exclude-negative-bp", action="store_true", help="leave out SNPs with a negative position")
    group.add_argument("--maf", type=float, default=0.0, metavar="FREQ", help="smallest minor allele frequency")
    group.add_argument("--geno", type=float, default=1.0, metavar="SHARE", help="largest missing share of a SNP")


def pheno_options(parser: Any, many: bool = False) -> Any:
    """Traits and covariates; returns the group for further ones. ``many`` traits need --pheno, which may be HDF5."""
    group = parser.add_argument_group("traits and covariates")
    pheno, names = "table with header FID IID NAME ...; default: the .fam's trait", "columns of --pheno; default: all"
    if many:
        pheno, names = (
            "table with header FID IID NAME ..., or HDF5",
            "traits, ranges FIRST:LAST or positions 1-500; default: all",
        )
    group.add_argument("--pheno", metavar="FILE", help=pheno)
    group.add_argument("--pheno-name", nargs="+", default=(), metavar="NAME", help=names)
    group.add_argument("--covar", metavar="FILE", help="table with header FID IID NAME ...")
    group.add_argument("--covar-name", nargs="+", default=(), metavar="NAME", help="columns of --covar; default: all")
    return group


def trait_options(parser: Any, many: bool = False) -> None:
    """Traits, ``many`` or few, covariates and kinship."""
    group = pheno_options(parser, many)
    group.add_argument(
        "--grm", metavar="FILE", help="kinship: mpgls .h5, GCTA prefix of .grm.bin, or GEMMA .cXX.txt with --grm-id"
    )
    group.add_argument("--grm-id", metavar="FILE", help="a .fam with the samples of a GEMMA kinship, in its order")
    center_option(group)


def center_option(parser: Any) -> None:
    """Whether the kinship is centred."""
    parser.add_argument(
        "--center-grm", action="store_true", help="centre the kinship over the analysed samples: h2 is then GEMMA's pve"
    )


def run_options(parser: Any, resume: bool = True, blocks: bool = True) -> None:
    """Output, memory, threads, blocks and resuming."""
    group = parser.add_argument_group("run")
    group.add_argument("--out", required=True, metavar="PREFIX", help="prefix of all output files")
    group.add_argument("--memory", type=float, metavar="GIB", help="memory a rank may use; the plan keeps within it")
    group.add_argument(
        "--threads", type=int, metavar="T", help="BLAS threads a rank; default: cores / ranks of the node"
    )
    if blocks:
        group.add_argument("--block-size", type=int, metavar="B", help="SNPs of a block; default: chosen by the plan")
    if resume:
        group.add_argument("--resume", action="store_true", help="go on where a stopped run left its result store")
        group.add_argument(
            "--checkpoint", type=float, metavar="SEC", help="seconds between two marks of what is done (15)"
        )


def study_options_of(given: argparse.Namespace) -> Any:
    """What the genotype and trait options say, as StudyOptions."""
    from mpgls.commands.common.inputs import StudyOptions
    from mpgls.study.filters import SnpFilter, parse_chromosomes

    snps = SnpFilter(
        chromosomes=parse_chromosomes(given.chr) if given.chr is not None else (),
        extract=given.extract,
        exclude=given.exclude,
        exclude_negative_bp=given.exclude_negative_bp,
        maf=given.maf,
        geno=given.geno,
    )
    traits: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key in ("pheno", "pheno_name", "covar", "covar_name", "grm", "grm_id", "center_grm")
        if (value := getattr(given, key, None)) is not None
    }
    return StudyOptions(bfile=given.bfile, keep=given.keep, remove=given.remove, mind=given.mind, snps=snps, **traits)


def run_options_of(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    """What the run options say, as RunOptions."""
    from mpgls.commands.common.session import RunOptions

    resume, checkpoint = getattr(given, "resume", False), getattr(given, "checkpoint", None)
    more = {} if checkpoint is None else {"checkpoint": checkpoint}
    return RunOptions(given.out, given.threads, given.memory, resume, ("mpgls", *argv), **more)


def eigensolver_options(parser: Any) -> None:
    """How the kinship is decomposed."""
    parser.add_argument(
        "--eigensolver", choices=("auto", "slepc", "scalapack"), default="auto",
        help="auto: SLEPc's ELPA where it has it, otherwise ScaLAPACK's divide and conquer",
    )  # fmt: skip
    parser.add_argument(
        "--slepc-options", default="", metavar="TEXT", help="options for SLEPc, such as '-eps_tol 1e-9'"
    )


def model_options(parser: Any) -> Any:
    """h2, precision and test; returns the group for further ones."""
    group = parser.add_argument_group("model")
    group.add_argument("--h2", type=float, metavar="X", help="heritability to use instead of the REML estimate")
    group.add_argument(
        "--precision", choices=("double", "mixed"), default="double",
        help="mixed streams the large products and solves in single precision",
    )  # fmt: skip
    group.add_argument(
        "--test", choices=("t", "wald"), default="t",
        help="t re-estimates the variance for each SNP (FaST-LMM, GEMMA); wald keeps the null model's (GCTA)",
    )  # fmt: skip
    return group


def eigen_option(parser: Any) -> None:
    """An eigendecomposition in place of the kinship."""
    parser.add_argument("--eigen", metavar="FILE", help="eigendecomposition made by mpgls eigen, instead of --grm")


def loco_option(parser: Any) -> None:
    """A kinship for each chromosome."""
    parser.add_argument(
        "--loco", action="store_true",
        help="scan each chromosome with the kinship of all others (--grm made by mpgls kinship --loco)",
    )  # fmt: skip


def h2_file_option(parser: Any) -> None:
    """Heritabilities of single traits."""
    parser.add_argument(
        "--h2-file", metavar="FILE",
        help="table with columns TRAIT and H2, with --loco also CHR; what it does not have is estimated",
    )  # fmt: skip


def pcs_option(parser: Any) -> None:
    """Principal components as covariates."""
    parser.add_argument("--pcs", type=int, default=0, metavar="K", help="K leading eigenvectors as covariates (0)")


def team_options(parser: Any) -> None:
    """Team size and plots."""
    parser.add_argument(
        "--team-size", default="auto", metavar="auto|R",
        help="ranks that hold one copy of the factor or basis together; auto: as few as memory allows",
    )  # fmt: skip
    parser.add_argument("--no-plots", action="store_true", help="do not draw plots")


def team_size(text: str) -> int | None:
    """The ranks of a team, None for auto. Raises UsageError."""
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--team-size must be auto or a number of ranks, not {text!r}")
    return int(text)
