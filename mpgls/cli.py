"""The command line: argv to one frozen config for each command. No numerics, no MPI."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from mpgls import __version__
from mpgls.cli_options import (
    center_option,
    eigen_option,
    eigensolver_options,
    genotype_options,
    model_options,
    pcs_option,
    run_options,
    run_options_of,
    study_options_of,
    team_options,
    team_size,
    trait_options,
)
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


def _kinship(commands: Any) -> None:
    parser = _command(
        commands,
        "kinship",
        "relationship matrix of all samples from their genotypes",
        "mpirun -n 4 mpgls kinship --bfile mice --maf 0.01 --out mice_K",
        _kinship_config,
    )
    genotype_options(parser)
    parser.add_argument(
        "--method",
        choices=("centered", "standardized"),
        default="centered",
        help="SNPs centred (GEMMA -gk 1, the default), or also divided by their standard deviation (-gk 2, GCTA)",
    )
    parser.add_argument("--grm-bin", action="store_true", help="write GCTA's .grm.bin, .grm.N.bin and .grm.id as well")
    run_options(parser, resume=False)


def _kinship_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.kinship import KinshipConfig

    return KinshipConfig(
        run_options_of(given, argv), study_options_of(given), given.method, given.grm_bin, given.block_size
    )


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
    center_option(parser)
    parser.add_argument("--eigenpairs", type=int, metavar="K", help="only the K leading pairs, also as covariate table")
    eigensolver_options(parser)
    run_options(parser, blocks=False, resume=False)


def _eigen_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.eigen import EigenConfig

    return EigenConfig(
        run_options_of(given, argv),
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
    genotype_options(parser)
    trait_options(parser)
    eigen_option(parser)
    model = model_options(parser)
    pcs_option(model)
    run_options(parser)
    team_options(parser)


def _single_trait_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.single_trait import SingleTraitConfig

    return SingleTraitConfig(
        run_options_of(given, argv),
        study_options_of(given),
        eigen=given.eigen,
        pcs=given.pcs,
        h2=given.h2,
        precision=given.precision,
        test=given.test,
        block_size=given.block_size,
        team_size=team_size(given.team_size),
        plots=not given.no_plots,
    )


def _multi_trait(commands: Any) -> None:
    parser = _command(
        commands,
        "multi-trait",
        "mixed-model scan of many traits on every SNP, from one eigendecomposition",
        "mpirun -n 4 mpgls multi-trait --bfile mice --pheno traits.tsv --grm mice_K.h5 --out all",
        _multi_trait_config,
    )
    genotype_options(parser)
    trait_options(parser)
    eigen_option(parser)
    model = model_options(parser)
    model.add_argument("--h2-file", metavar="FILE", help="table with columns TRAIT and H2; others are estimated")
    model.add_argument(
        "--missing", choices=("by-mask", "complete", "impute"), default="by-mask",
        help="by-mask: exact, traits grouped by their samples; complete: samples with all traits; impute: approximate",
    )  # fmt: skip
    pcs_option(model)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--p-threshold", type=float, default=5e-8, metavar="P", help="pairs with a smaller p value are written (5e-8)"
    )
    output.add_argument("--dense", action="store_true", help="keep every effect and standard error, in PREFIX.h5")
    eigensolver_options(parser)
    run_options(parser)
    parser.add_argument("--trait-block", type=int, metavar="T", help="traits of a tile; default: chosen by the plan")
    parser.add_argument(
        "--pass-traits",
        type=int,
        metavar="T",
        help="traits of one pass over the SNPs, at most; default: as memory allows",
    )
    parser.add_argument("--scratch", metavar="DIR", help="directory for rotated SNPs; default: beside the output")
    team_options(parser)


def _multi_trait_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.multi_config import MultiTraitConfig

    names = ("eigen", "h2", "h2_file", "missing", "precision", "test", "p_threshold", "dense", "pcs", "block_size")
    return MultiTraitConfig(
        run_options_of(given, argv),
        study_options_of(given),
        **{name: getattr(given, name) for name in (*names, "trait_block", "pass_traits", "slepc_options", "scratch")},
        team_size=team_size(given.team_size),
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
