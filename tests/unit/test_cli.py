"""Command lines become configs; what is wrong with one is a UsageError that names the option."""

from __future__ import annotations

import pytest

from mpgls import __version__, cli
from mpgls.commands.common.inputs import StudyOptions
from mpgls.commands.common.session import RunOptions
from mpgls.commands.doctor import DoctorConfig
from mpgls.commands.kinship import Kinship
from mpgls.commands.simulate import SimulateConfig
from mpgls.commands.single_trait import SingleTraitConfig
from mpgls.errors import UsageError
from mpgls.study.filters import SnpFilter

SCAN = "single-trait --bfile g --grm K.h5 --out o"
PLAN = "plan low-rank --samples 99 --snps 99 --similarity-count 30 --ranks 1"


def parse(line):
    return cli.parse(line.split())


def config(line):
    return parse(line).config


def test_defaults_are_those_of_the_configs():
    assert config("simulate --samples 9 --snps 5 --out g") == SimulateConfig(9, 5, "g")
    assert config("doctor") == DoctorConfig()
    run = RunOptions("o", command_line=("mpgls", *SCAN.split()))
    assert config(SCAN) == SingleTraitConfig(run, StudyOptions("g", grm="K.h5"))
    line = "kinship --bfile g --out K"
    assert parse(line).options == Kinship(bfile="g", out="K", command_line=("mpgls", *line.split()))


def test_every_option_of_the_study_arrives():
    filters = "--chr 1-3,X --extract e --exclude x --exclude-negative-bp --maf 0.1 --geno 0.2"
    samples = "--keep k --remove r --mind 0.3"
    tables = "--pheno p --pheno-name a b --covar c --covar-name d --grm-id i"
    expected = StudyOptions(
        bfile="g",
        pheno="p",
        pheno_name=("a", "b"),
        covar="c",
        covar_name=("d",),
        grm="K.h5",
        grm_id="i",
        keep="k",
        remove="r",
        mind=0.3,
        snps=SnpFilter(("1", "2", "3", "X"), "e", "x", True, 0.1, 0.2),
    )
    assert config(f"{SCAN} {filters} {samples} {tables}").study == expected


def test_every_option_of_the_model_and_the_run_arrives():
    model = "--h2 0.5 --precision mixed --test wald --team-size 3 --block-size 77 --no-plots"
    made = config(f"{SCAN} {model} --memory 1.5 --threads 2 --resume --checkpoint 3")
    assert (made.h2, made.precision, made.test, made.team_size, made.block_size) == (0.5, "mixed", "wald", 3, 77)
    assert not made.plots
    run = made.run
    assert (run.memory, run.threads, run.resume, run.checkpoint) == (1.5, 2, True, 3.0)


def test_options_of_kinship_and_simulate():
    made = parse("kinship --bfile g --out K --method standardized --grm-bin --block-size 9").options
    assert (made.method, made.grm_bin, made.block_size) == ("standardized", True, 9)
    made = config("simulate --samples 9 --snps 5 --out g --families 3 --missing 0.1 --causal-share 0.4")
    assert (made.family_size, made.missing, made.causal_share) == (3, 0.1, 0.4)


@pytest.mark.parametrize("text, size", [("auto", None), ("1", 1), ("16", 16)])
def test_team_size(text, size):
    assert config(f"{SCAN} --team-size {text}").team_size == size


@pytest.mark.parametrize(
    "line, part",
    [
        ("", "no command"),
        ("scan", "scan"),
        ("single-trait --out o", "--bfile"),
        ("kinship --bfile g", "--out"),
        ("single-trait --bfile g --out o", "--grm"),
        (f"{SCAN} --team-size 0", "--team-size"),
        (f"{SCAN} --team-size many", "--team-size"),
        (f"{SCAN} --h2 1", "--h2"),
        (f"{SCAN} --h2 x", "--h2"),
        (f"{SCAN} --test f", "--test"),
        (f"{SCAN} --precision half", "--precision"),
        (f"{SCAN} --memory 0", "--memory"),
        (f"{SCAN} --memory nan", "--memory"),
        (f"{SCAN} --memory inf", "--memory"),
        (f"{PLAN} --memory inf", "--memory"),
        (f"{PLAN} --rates r.json --json ./r.json", "overwrite its rates"),
        (f"{SCAN} --threads 0", "--threads"),
        (f"{SCAN} --checkpoint -1", "--checkpoint"),
        (f"{SCAN} --mind 2", "--mind"),
        (f"{SCAN} --maf 0.7", "--maf"),
        (f"{SCAN} --geno -1", "--geno"),
        (f"{SCAN} --chr 3-1", "3-1"),
        (f"{SCAN} --chr=", "--chr"),
        (f"{SCAN} --covar-name a", "--covar"),
        (f"{SCAN} --pheno-name a", "--pheno"),
        ("single-trait --bfile g --eigen E.h5 --center-grm --out o", "--center-grm needs --grm"),
        ("multi-trait --bfile g --pheno t --eigen E.h5 --grm-id g.fam --out o", "--grm-id needs --grm"),
        (f"{SCAN} --unknown", "--unknown"),
        (f"{SCAN} --prec double", "--prec"),
        ("kinship --bfile g --out K --block-size 0", "--block-size"),
    ],
)
def test_what_is_wrong_is_named(line, part):
    with pytest.raises(UsageError, match=part):
        parse(line)


@pytest.mark.parametrize("command", ["kinship", "single-trait", "simulate", "doctor"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(f"{command} --help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"mpgls {command}" in text.split("example:")[1]


def test_version(capsys):
    with pytest.raises(SystemExit):
        parse("--version")
    assert capsys.readouterr().out.strip() == f"mpgls {__version__}"


def test_a_command_runs_its_module(monkeypatch):
    from mpgls.commands import doctor

    seen = []
    monkeypatch.setattr(doctor, "run", lambda config, comm: seen.append((config, comm)))
    parse("doctor --threads 2").run("a communicator")
    assert seen == [(DoctorConfig(threads=2), "a communicator")]
