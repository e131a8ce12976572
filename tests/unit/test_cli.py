"""Command lines become options; what is wrong with one is a UsageError that names the option."""

from __future__ import annotations

import pytest

from mpgls import __version__, cli
from mpgls.commands import COMMANDS, options_of
from mpgls.errors import StorageError, UsageError
from mpgls.run.options import declared, make
from mpgls.study.filters import SnpFilter

SCAN = "single-trait --bfile g --grm K.h5 --out o"
PLAN = "plan low-rank --samples 99 --snps 99 --similarity-count 30 --ranks 1"


def parse(line):
    return cli.parse(line.split())


def options(line):
    return parse(line).options


def test_every_command_says_what_it_is():
    for name in COMMANDS:
        kind = options_of(name)
        assert kind.command == name and f"mpgls {name}" in kind.example and not kind.summary.endswith(".")
        assert all(one.option.help for one in declared(kind))


def test_defaults_are_those_of_the_declarations():
    assert options("simulate --samples 9 --snps 50 --out g") == make(
        options_of("simulate"), {"samples": 9, "snps": 50, "out": "g"}
    )
    assert options("doctor") == make(options_of("doctor"), {})


def test_the_command_line_is_kept():
    made = options(SCAN)
    assert made == make(options_of("single-trait"), {"bfile": "g", "grm": "K.h5", "out": "o"})
    assert made.typed() == ("mpgls", *SCAN.split())
    assert options("kinship --bfile g --out K") == make(options_of("kinship"), {"bfile": "g", "out": "K"})


def test_every_option_of_the_study_arrives():
    filters = "--chr 1-3,X --extract e --exclude x --exclude-negative-bp --maf 0.1 --geno 0.2"
    samples = "--keep k --remove r --mind 0.3"
    tables = "--pheno p --pheno-name a b --covar c --covar-name d --grm-id i"
    made = options(f"{SCAN} {filters} {samples} {tables}")
    assert made.snps == SnpFilter(("1", "2", "3", "X"), "e", "x", True, 0.1, 0.2)
    assert (made.keep, made.remove, made.mind) == ("k", "r", 0.3)
    assert (made.pheno, made.pheno_name, made.covar, made.covar_name) == ("p", ("a", "b"), "c", ("d",))
    assert (made.bfile, made.grm, made.grm_id) == ("g", "K.h5", "i")


def test_every_option_of_the_model_and_the_run_arrives():
    model = "--h2 0.5 --precision mixed --test wald --team-size 3 --block-size 77 --no-plots"
    made = options(f"{SCAN} {model} --memory 1.5 --threads 2 --resume --checkpoint 3")
    assert (made.h2, made.precision, made.test, made.team_size, made.block_size) == (0.5, "mixed", "wald", 3, 77)
    assert made.no_plots and not options(SCAN).no_plots
    assert (made.memory, made.threads, made.resume, made.checkpoint) == (1.5, 2, True, 3.0)


def test_options_of_simulate():
    made = options("simulate --samples 9 --snps 5 --out g --families 3 --missing 0.1 --causal 5 --causal-share 0.4")
    assert (made.families, made.missing, made.causal, made.causal_share) == (3, 0.1, 5, 0.4)


def test_options_of_kinship():
    made = options("kinship --bfile g --out K --method standardized --grm-bin --block-size 9")
    assert (made.method, made.grm_bin, made.block_size) == ("standardized", True, 9)


@pytest.mark.parametrize("text, size", [("auto", None), ("1", 1), ("16", 16)])
def test_team_size(text, size):
    assert options(f"{SCAN} --team-size {text}").team_size == size


@pytest.mark.parametrize(
    "line, part",
    [
        ("", "no command"),
        ("scan", "scan"),
        ("single-trait --grm K.h5 --out o", "single-trait needs genotypes: one of --bfile, "),
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


@pytest.mark.parametrize("command", COMMANDS)
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
    monkeypatch.setattr(doctor, "run", lambda options, comm: seen.append((options.threads, comm)))
    parse("doctor --threads 2").run("a communicator")
    assert seen == [(2, "a communicator")]


# -- options in a file ------------------------------------------------------------------------------------------------


def test_options_of_a_file_stand_where_it_does(tmp_path):
    path = tmp_path / "options"
    path.write_text("--bfile 'my mice' # the mice\n\n--maf 0.1\t--pheno-name a b\n# --geno 0.5\n--out one")
    words = ["kinship", f"@{path}", "--out", "two"]
    with pytest.raises(UsageError, match="unrecognized arguments: --pheno-name"):
        cli.parse(words)
    path.write_text(path.read_text().replace("--pheno-name a b", '--chr "1-4,X"'))
    made = cli.parse(words).options
    assert (made.bfile, made.maf, made.chr, made.out) == ("my mice", 0.1, "1-4,X", "two")
    assert made.typed() == (
        "mpgls", "kinship", "--bfile", "my mice", "--maf", "0.1", "--chr", "1-4,X", "--out", "one", "--out", "two",
    )  # fmt: skip
    path.write_text("\ufeffkinship --bfile b --out c")
    assert cli.parse([f"@{path}"]).options.bfile == "b"


def test_a_value_may_begin_with_an_at(tmp_path):
    made = cli.parse(["kinship", "--bfile", "@.v2", "--out", "@x"]).options
    assert (made.bfile, made.out) == ("@.v2", "@x")
    path = tmp_path / "options"
    path.write_text("--bfile @.v2")
    assert cli.parse(["kinship", "--out", "x", f"@{path}"]).options.bfile == "@.v2"


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, StorageError, "cannot read the options in .*: No such file"),
        (b"--bfile 'open", UsageError, "has a quote that is not closed"),
        (b"--bfile \xff", UsageError, "is not UTF-8 text"),
        (b"--bfile b @more", UsageError, "unrecognized arguments: @more"),
    ],
)
def test_files_of_options_that_are_none(tmp_path, content, error, message):
    path = tmp_path / "options"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        cli.parse(["kinship", f"@{path}", "--out", "x"])
