"""The command line: argv to one frozen config for each command. No numerics, no MPI."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from mpgls import __version__
from mpgls.errors import UsageError

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True)
class Command:
    """A parsed command: its name, its module, and its config."""

    name: str
    module: str
    config: Any

    def run(self, comm: MPI.Comm) -> None:
        """Run it on all ranks of ``comm``."""
        importlib.import_module(self.module).run(self.config, comm)


class _Parser(argparse.ArgumentParser):
    """Raises UsageError instead of exiting, so that one rank speaks for all."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def parse(argv: Sequence[str]) -> Command:
    """The command that ``argv`` asks for. Raises UsageError; exits by itself for --help and --version only."""
    parser = _Parser(
        prog="mpgls",
        description="Exact mixed-model genome-wide association studies on one core or a whole cluster.",
        epilog="Every command also runs on many ranks: mpirun -n 64 mpgls COMMAND ...   "
        "Each has its own --help with an example.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mpgls {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for declare in (_kinship, _eigen, _single_trait, _multi_trait, _export, _simulate, _doctor):
        declare(commands)
    given = parser.parse_args(argv)
    if given.command is None:
        raise UsageError(
            "no command was given: kinship, eigen, single-trait, multi-trait, export, simulate or doctor "
            "(see mpgls --help)"
        )
    return Command(given.command, given.module, given.make(given, tuple(argv)))


def _command(commands: Any, name: str, summary: str, example: str, make: Callable[..., Any]) -> Any:
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


# -- groups of options that commands share ------------------------------------------------------------------------


def _genotype_options(parser: Any) -> None:
    group = parser.add_argument_group("genotypes and filters")
    group.add_argument("--bfile", required=True, metavar="PREFIX", help="PLINK 1 files PREFIX.bed, .bim and .fam")
    group.add_argument("--keep", metavar="FILE", help="analyse only these samples (FID IID a line)")
    group.add_argument("--remove", metavar="FILE", help="leave these samples out")
    group.add_argument("--mind", type=float, default=1.0, metavar="SHARE", help="largest missing share of a sample")
    group.add_argument("--chr", metavar="LIST", help="chromosomes, such as 1-4,X")
    group.add_argument("--extract", metavar="FILE", help="analyse only these SNPs (one ID a line)")
    group.add_argument("--exclude", metavar="FILE", help="leave these SNPs out")
    group.add_argument("--exclude-negative-bp", action="store_true", help="leave out SNPs with a negative position")
    group.add_argument("--maf", type=float, default=0.0, metavar="FREQ", help="smallest minor allele frequency")
    group.add_argument("--geno", type=float, default=1.0, metavar="SHARE", help="largest missing share of a SNP")


def _trait_options(parser: Any) -> None:
    group = parser.add_argument_group("traits and covariates")
    group.add_argument("--pheno", metavar="FILE", help="table with header FID IID NAME ...; default: the .fam's trait")
    group.add_argument("--pheno-name", nargs="+", default=(), metavar="NAME", help="columns of --pheno; default: all")
    group.add_argument("--covar", metavar="FILE", help="table with header FID IID NAME ...")
    group.add_argument("--covar-name", nargs="+", default=(), metavar="NAME", help="columns of --covar; default: all")
    group.add_argument(
        "--grm", metavar="FILE", help="kinship: mpgls .h5, GCTA prefix of .grm.bin, or GEMMA .cXX.txt with --grm-id"
    )
    group.add_argument("--grm-id", metavar="FILE", help="a .fam with the samples of a GEMMA kinship, in its order")
    _center_option(group)


def _center_option(parser: Any) -> None:
    parser.add_argument(
        "--center-grm", action="store_true", help="centre the kinship over the analysed samples: h2 is then GEMMA's pve"
    )


def _run_options(parser: Any, resume: bool = True, blocks: bool = True) -> None:
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


def _study(given: argparse.Namespace) -> Any:
    from mpgls.commands.inputs import StudyOptions
    from mpgls.study.filters import SnpFilter, parse_chromosomes

    snps = SnpFilter(
        chromosomes=parse_chromosomes(given.chr) if given.chr else (),
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


def _run(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.session import RunOptions

    resume, checkpoint = getattr(given, "resume", False), getattr(given, "checkpoint", None)
    more = {} if checkpoint is None else {"checkpoint": checkpoint}
    return RunOptions(given.out, given.threads, given.memory, resume, ("mpgls", *argv), **more)


# -- commands -----------------------------------------------------------------------------------------------------


def _kinship(commands: Any) -> None:
    parser = _command(
        commands,
        "kinship",
        "relationship matrix of all samples from their genotypes",
        "mpirun -n 4 mpgls kinship --bfile mice --maf 0.01 --out mice_K",
        _kinship_config,
    )
    _genotype_options(parser)
    parser.add_argument(
        "--method",
        choices=("centered", "standardized"),
        default="centered",
        help="SNPs centred (GEMMA -gk 1, the default), or also divided by their standard deviation (-gk 2, GCTA)",
    )
    parser.add_argument("--grm-bin", action="store_true", help="write GCTA's .grm.bin, .grm.N.bin and .grm.id as well")
    _run_options(parser, resume=False)


def _kinship_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.kinship import KinshipConfig

    return KinshipConfig(_run(given, argv), _study(given), given.method, given.grm_bin, given.block_size)


def _eigen(commands: Any) -> None:
    parser = _command(
        commands,
        "eigen",
        "eigendecomposition of a kinship, once, for many later scans",
        "mpirun -n 4 mpgls eigen --grm mice_K.h5 --out mice_E",
        _eigen_config,
    )
    parser.add_argument("--grm", required=True, metavar="FILE", help="kinship, in any of the formats of single-trait")
    parser.add_argument("--grm-id", metavar="FILE", help="a .fam with the samples of a GEMMA kinship, in its order")
    parser.add_argument("--keep", metavar="FILE", help="only these samples (FID IID a line)")
    parser.add_argument("--remove", metavar="FILE", help="without these samples")
    _center_option(parser)
    parser.add_argument("--eigenpairs", type=int, metavar="K", help="only the K leading pairs, also as covariate table")
    _eigensolver_options(parser)
    _run_options(parser, blocks=False, resume=False)


def _eigensolver_options(parser: Any) -> None:
    parser.add_argument(
        "--eigensolver", choices=("auto", "slepc", "scalapack"), default="auto",
        help="auto: SLEPc's ELPA where it has it, otherwise ScaLAPACK's divide and conquer",
    )  # fmt: skip
    parser.add_argument(
        "--slepc-options", default="", metavar="TEXT", help="options for SLEPc, such as '-eps_tol 1e-9'"
    )


def _eigen_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.eigen import EigenConfig

    return EigenConfig(
        _run(given, argv),
        grm=given.grm,
        grm_id=given.grm_id,
        keep=given.keep,
        remove=given.remove,
        center_grm=given.center_grm,
        solver=given.eigensolver,
        slepc_options=given.slepc_options,
        eigenpairs=given.eigenpairs,
    )


def _single_trait(commands: Any) -> None:
    parser = _command(
        commands,
        "single-trait",
        "mixed-model scan of one trait (or several, one after the other) on every SNP",
        "mpirun -n 4 mpgls single-trait --bfile mice --pheno traits.tsv --pheno-name CD8 --grm mice_K.h5 --out cd8",
        _single_trait_config,
    )
    _genotype_options(parser)
    _trait_options(parser)
    _eigen_option(parser)
    model = _model_options(parser)
    _pcs_option(model)
    _run_options(parser)
    _team_options(parser)


def _model_options(parser: Any) -> Any:
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


def _eigen_option(parser: Any) -> None:
    parser.add_argument("--eigen", metavar="FILE", help="eigendecomposition made by mpgls eigen, instead of --grm")


def _pcs_option(parser: Any) -> None:
    parser.add_argument("--pcs", type=int, default=0, metavar="K", help="K leading eigenvectors as covariates (0)")


def _team_options(parser: Any) -> None:
    parser.add_argument(
        "--team-size", default="auto", metavar="auto|R",
        help="ranks that hold one copy of the factor or basis together; auto: as few as memory allows",
    )  # fmt: skip
    parser.add_argument("--no-plots", action="store_true", help="do not draw plots")


def _single_trait_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.single_trait import SingleTraitConfig

    return SingleTraitConfig(
        _run(given, argv),
        _study(given),
        eigen=given.eigen,
        pcs=given.pcs,
        h2=given.h2,
        precision=given.precision,
        test=given.test,
        block_size=given.block_size,
        team_size=_team_size(given.team_size),
        plots=not given.no_plots,
    )


def _team_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--team-size must be auto or a number of ranks, not {text!r}")
    return int(text)


def _multi_trait(commands: Any) -> None:
    parser = _command(
        commands,
        "multi-trait",
        "mixed-model scan of many traits on every SNP, from one eigendecomposition",
        "mpirun -n 4 mpgls multi-trait --bfile mice --pheno traits.tsv --grm mice_K.h5 --out all",
        _multi_trait_config,
    )
    _genotype_options(parser)
    _trait_options(parser)
    _eigen_option(parser)
    model = _model_options(parser)
    model.add_argument("--h2-file", metavar="FILE", help="table with columns TRAIT and H2; others are estimated")
    model.add_argument(
        "--missing", choices=("by-mask", "complete", "impute"), default="by-mask",
        help="by-mask: exact, traits grouped by their samples; complete: samples with all traits; impute: approximate",
    )  # fmt: skip
    _pcs_option(model)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--p-threshold", type=float, default=5e-8, metavar="P", help="pairs with a smaller p value are written (5e-8)"
    )
    output.add_argument("--dense", action="store_true", help="keep every effect and standard error, in PREFIX.h5")
    _eigensolver_options(parser)
    _run_options(parser)
    parser.add_argument("--trait-block", type=int, metavar="T", help="traits of a tile; default: chosen by the plan")
    parser.add_argument(
        "--pass-traits",
        type=int,
        metavar="T",
        help="traits of one pass over the SNPs, at most; default: as memory allows",
    )
    parser.add_argument("--scratch", metavar="DIR", help="directory for rotated SNPs; default: beside the output")
    _team_options(parser)


def _multi_trait_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.multi_config import MultiTraitConfig

    names = ("eigen", "h2", "h2_file", "missing", "precision", "test", "p_threshold", "dense", "pcs", "block_size")
    return MultiTraitConfig(
        _run(given, argv),
        _study(given),
        **{name: getattr(given, name) for name in (*names, "trait_block", "pass_traits", "slepc_options", "scratch")},
        team_size=_team_size(given.team_size),
        solver=given.eigensolver,
        plots=not given.no_plots,
    )


def _export(commands: Any) -> None:
    parser = _command(
        commands,
        "export",
        "one trait of a result store as a table",
        "mpgls export all.h5 --trait CD8 --out cd8",
        _export_config,
    )
    parser.add_argument("store", metavar="STORE", help="PREFIX.h5 of multi-trait --dense or of single-trait")
    parser.add_argument("--trait", nargs="+", default=(), metavar="NAME", help="traits; needed if there are several")
    parser.add_argument("--bfile", metavar="PREFIX", help="PLINK files, if they are no longer where the run found them")
    parser.add_argument("--out", required=True, metavar="PREFIX", help="prefix of the tables")


def _export_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.export import ExportConfig
    from mpgls.commands.session import RunOptions

    options = RunOptions(given.out, command_line=("mpgls", *argv))
    return ExportConfig(options, given.store, tuple(given.trait), given.bfile)


def _simulate(commands: Any) -> None:
    parser = _command(
        commands,
        "simulate",
        "PLINK genotypes with families and linkage, and traits with a polygenic background",
        "mpirun -n 4 mpgls simulate --samples 4000 --snps 20000 --seed 1 --out sim",
        _simulate_config,
    )
    parser.add_argument("--samples", type=int, required=True, metavar="N", help="number of samples")
    parser.add_argument("--snps", type=int, required=True, metavar="M", help="number of SNPs")
    parser.add_argument("--out", required=True, metavar="PREFIX", help="prefix of all output files")
    parser.add_argument("--traits", type=int, default=1, metavar="T", help="number of traits (1)")
    parser.add_argument("--h2", type=float, default=0.5, metavar="X", help="heritability of every trait (0.5)")
    parser.add_argument("--chromosomes", type=int, default=22, metavar="C", help="number of chromosomes (22)")
    parser.add_argument(
        "--families", type=int, default=4, metavar="SIZE", help="members of a family, parents first (4)"
    )
    parser.add_argument("--founders", type=int, default=64, metavar="F", help="ancestral haplotypes (64)")
    parser.add_argument("--missing", type=float, default=0.0, metavar="SHARE", help="share of missing genotypes (0)")
    parser.add_argument("--causal", type=int, default=10, metavar="C", help="causal SNPs of each trait (10)")
    parser.add_argument("--causal-share", type=float, default=0.2, metavar="S", help="their share of h2 (0.2)")
    parser.add_argument("--covariates", type=int, default=2, metavar="Q", help="columns of the covariate table (2)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="the same seed makes the same bytes (1)")


def _simulate_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.simulate import SimulateConfig

    names = (
        "samples", "snps", "out", "traits", "h2", "chromosomes", "founders", "missing",
        "causal", "causal_share", "covariates", "seed",
    )  # fmt: skip
    return SimulateConfig(family_size=given.families, **{name: getattr(given, name) for name in names})


def _doctor(commands: Any) -> None:
    parser = _command(
        commands,
        "doctor",
        "what this installation consists of, how fast it is, and what is wrong with it",
        "mpirun -n 4 mpgls doctor --directory /scratch --json rates.json",
        _doctor_config,
    )
    parser.add_argument("--directory", default=".", metavar="DIR", help="filesystem whose read rate is measured")
    parser.add_argument(
        "--threads", type=int, metavar="T", help="BLAS threads a rank; default: cores / ranks of the node"
    )
    parser.add_argument("--json", metavar="FILE", help="write the same facts as JSON")
    parser.add_argument("--full", action="store_true", help="measure longer, and list every rank")


def _doctor_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.doctor import DoctorConfig

    return DoctorConfig(given.directory, given.threads, given.json, given.full)
