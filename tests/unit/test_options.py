"""Options that are declared once: what a value may be, and what is made of the declarations."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mpgls import face
from mpgls.cli.parser import Parser, add_command
from mpgls.commands import COMMANDS, module_of, options_of
from mpgls.errors import UsageError
from mpgls.run.option_groups import OutputOptions
from mpgls.run.options import GROUPS, Options, at_least, between, declared, flag, make, option, required, the_file


def size(text):
    if text == "auto":
        return None
    if not text.isdigit():
        raise UsageError(f"--team-size must be auto or a number, not {text!r}")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class Base(Options):
    """What two commands share."""

    pheno: str | None = option(None, "a table", group="traits and covariates", metavar="FILE", reads=the_file)
    pheno_name: tuple[str, ...] = option((), "columns", group="traits and covariates", metavar="NAME")

    def check(self):
        super().check()
        if self.pheno_name and self.pheno is None:
            raise UsageError("--pheno-name needs --pheno")


@dataclass(frozen=True, kw_only=True)
class Scan(Base):
    """Options of a command."""

    command = "scan-all"
    summary = "scan everything"
    example = "mpgls scan-all g --out o"

    store: str = required("a store", metavar="STORE", positional=True, reads=lambda p: [f"{p}.bed", f"{p}.bim"])
    out: str = required("prefix", metavar="PREFIX", changes_results=False)
    h2: float | None = option(None, "heritability", group="model", metavar="X", check=between(0, 1))
    block_size: int = option(64, "SNPs", metavar="B", check=at_least(1), changes_results=False)
    ranks: tuple[int, ...] = option((1,), "ranks", check=at_least(1, " each"))
    test: str = option("t", "the test", group="model", choices=("t", "wald"))
    team_size: int | None = option(None, "ranks of a team", metavar="auto|R", parse=size, changes_results=False)
    no_loco: bool = flag("all SNPs", group="model")

    def check(self):
        super().check()
        if self.no_loco and self.h2 is not None:
            raise UsageError("--no-loco takes no --h2")


NEEDED = {"store": "s", "out": "o"}


def options(**given):
    return make(Scan, {**NEEDED, **given})


# -- values -------------------------------------------------------------------------------------------------------


def test_defaults():
    made = options()
    assert {one.name: getattr(made, one.name) for one in declared(Scan)} == {
        **NEEDED, "h2": None, "block_size": 64, "ranks": (1,), "test": "t", "team_size": None, "no_loco": False,
        "pheno": None, "pheno_name": (),
    }  # fmt: skip
    assert made == options(h2=None, block_size=None, ranks=None, test=None, no_loco=None, pheno_name=None)


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("h2", 1, 1.0),
        ("h2", np.float32(0.5), 0.5),
        ("h2", np.int64(0), 0.0),
        ("block_size", np.int32(7), 7),
        ("ranks", [1, np.int64(4)], (1, 4)),
        ("ranks", range(1, 3), (1, 2)),
        ("out", Path("folder") / "o", "folder/o"),
        ("pheno", Path("p.tsv"), "p.tsv"),
        ("team_size", "auto", None),
        ("team_size", "3", 3),
        ("team_size", 3, 3),
        ("no_loco", True, True),
        ("no_loco", np.bool_(True), True),
        ("no_loco", 1, True),
    ],
)
def test_values_of_python_become_those_of_the_annotation(name, given, value):
    found = getattr(options(**{name: given}), name)
    assert found == value and type(found) is type(value)


def test_texts_that_numpy_holds_become_plain_ones():
    scan = make(Scan, {"store": np.str_("g"), "out": "o", "pheno": "p", "pheno_name": np.array(["a", "b"])})
    assert {type(scan.store), *map(type, scan.pheno_name)} == {str} and scan.pheno_name == ("a", "b")


def test_one_name_is_a_list_of_one():
    for given in ("CD8", ["CD8"], ("CD8",), np.array(["CD8"])):
        made = options(pheno="p", pheno_name=given)
        assert made.pheno_name == ("CD8",) and "CD8" in made.typed()


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("h2", "much", "--h2 must be a number, not 'much'"),
        ("h2", True, "--h2 must be a number, not True"),
        ("h2", 1.5, "--h2 must be from 0 to 1, not 1.5"),
        ("h2", float("nan"), "--h2 must be from 0 to 1, not nan"),
        ("block_size", 2.5, "--block-size must be a whole number, not 2.5"),
        ("block_size", "7", "--block-size must be a whole number, not '7'"),
        ("block_size", 0, "--block-size must be at least 1, not 0"),
        ("ranks", (2, 0), "--ranks must be at least 1 each, not 0"),
        ("test", "f", "--test must be one of t, wald, not f"),
        ("out", 3, "--out must be a text, not 3"),
        ("store", 3, "store must be a text, not 3"),
        ("no_loco", "yes", "--no-loco must be True or False, not 'yes'"),
        ("no_loco", 2, "--no-loco must be True or False, not 2"),
        ("team_size", "many", "--team-size must be auto or a number, not 'many'"),
        ("pheno_name", ("a", 3), "--pheno-name must be a text, not 3"),
    ],
)
def test_what_a_value_must_be(name, given, said):
    with pytest.raises(UsageError) as refused:
        options(**{"pheno": "p", name: given})
    assert str(refused.value) == said


def test_what_must_be_given_and_what_there_is_not():
    for given, said in (
        ({"out": "o"}, "scan-all needs store"),
        ({"store": "s", "out": None}, "scan-all needs --out"),
        ({}, "scan-all needs store, --out"),
        ({**NEEDED, "blocksize": 3}, "scan-all has no option 'blocksize'; it has pheno, pheno_name, h2, test, no_loco"),
    ):
        with pytest.raises(UsageError) as refused:
            make(Scan, given)
        assert str(refused.value).startswith(said)


def test_rules_between_options_of_the_class_and_of_its_groups():
    with pytest.raises(UsageError, match="--pheno-name needs --pheno"):
        options(pheno_name=("a",))
    with pytest.raises(UsageError, match="--no-loco takes no --h2"):
        options(no_loco=True, h2=0.5)


def test_options_do_not_change():
    made = options()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.h2 = 0.5
    with pytest.raises(UsageError, match="--h2 must be from 0 to 1"):
        dataclasses.replace(made, h2=2.0)


# -- what is made of the declarations -----------------------------------------------------------------------------


def test_the_order_is_that_of_help():
    groups = [one.option.group for one in declared(Scan)]
    assert groups == sorted(groups, key=GROUPS.index)
    assert [one.name for one in declared(Scan)][:3] == ["pheno", "pheno_name", "h2"]


def test_the_command_line_of_values():
    made = options(h2=0.25, ranks=(1, 4), team_size=2, pheno="my table", pheno_name=("CD8", "CD4"))
    words = ("--pheno", "my table", "--pheno-name", "CD8", "CD4", "--h2", "0.25")
    assert made.typed() == ("mpgls", "scan-all", *words, "s", "--out", "o", "--ranks", "1", "4", "--team-size", "2")
    assert options(no_loco=True).typed() == ("mpgls", "scan-all", "--no-loco", "s", "--out", "o")
    assert make(Scan, NEEDED, ("mpgls", "scan-all", "--out=o", "s")).typed() == ("mpgls", "scan-all", "--out=o", "s")


def test_the_command_line_of_values_gives_the_values():
    made = options(h2=0.1 + 0.2, ranks=(1, 4), team_size=2, pheno="my table", pheno_name=("CD8", "CD4"), test="wald")
    parser = Parser()
    add_command(parser.add_subparsers(), Scan)
    words = list(made.typed()[1:])
    words += [words.pop(words.index("s"))]  # after an option of several values argparse needs it at the end
    assert make(Scan, vars(parser.parse_args(words))) == made


def test_the_advice_is_what_was_typed_and_resume():
    @dataclass(frozen=True, kw_only=True)
    class Long(OutputOptions):
        command, summary, example = "long", "long", "mpgls long"

        pheno: str | None = option(None, "a table")

    made = make(Long, {"out": "o", "pheno": "my table"})
    assert made.go_on() == "go on with: mpgls long --out o --pheno 'my table' --resume"
    assert make(Long, {"out": "o", "resume": True}).go_on() == "go on with: mpgls long --out o --resume"
    typed = ("mpgls", "long", "--out", "o", "--resume")
    assert make(Long, {"out": "o", "resume": True}, typed).go_on() == "go on with: mpgls long --out o --resume"
    assert make(Long, {"out": "o"}, typed[:-1]).go_on() == "go on with: mpgls long --out o --resume"


def test_what_determines_the_results():
    """Neither files, which are known by their content, nor what a resumed run may change, nor defaults."""
    assert options(team_size=2, block_size=7, pheno="p", h2=None, test="t").determine_results() == {}
    made = options(h2=0.5, pheno="p", pheno_name=["a"], no_loco=False)
    assert made.determine_results() == {"--h2": 0.5, "--pheno-name": ("a",)}


def test_the_files_that_are_read():
    assert options().input_files() == {"store": ["s.bed", "s.bim"]}
    assert options(pheno="p.tsv").input_files() == {"--pheno": ["p.tsv"], "store": ["s.bed", "s.bim"]}


def test_a_function_has_the_options_as_keywords(monkeypatch):
    import inspect

    seen = []
    module = type("module", (), {"run": staticmethod(lambda options, comm: seen.append((options, comm)))})
    monkeypatch.setattr(face, "options_of", lambda _: Scan)
    monkeypatch.setattr(face, "module_of", lambda _: module)
    function = face.function_of("scan-all")
    assert function.__name__ == "scan_all" and "--" not in function.__doc__.split("\n")[0]
    parameters = inspect.signature(function).parameters
    assert list(parameters) == ["comm", "verbose", *(one.name for one in declared(Scan))]
    assert parameters["out"].default is inspect.Parameter.empty and parameters["block_size"].default == 64
    function(**NEEDED, h2=0.5, comm="a communicator")
    assert seen == [(options(h2=0.5), "a communicator")]
    with pytest.raises(UsageError, match="scan-all has no option 'h3'"):
        function(**NEEDED, h3=0.5)


# -- those of the commands ----------------------------------------------------------------------------------------

DECLARED = [name for name, kind in COMMANDS.items() if hasattr(getattr(module_of(name), kind, None), "summary")]


@pytest.mark.parametrize("command", DECLARED)
def test_every_declaration_of_a_command_is_whole(command):
    for one in declared(options_of(command)):
        assert one.option.help and one.kind in (bool, int, float, str)
        assert one.kind is not bool or (one.default is False and not one.many), one.flag
        if one.default is not dataclasses.MISSING:
            one.check(one.value_of(None))
        if one.option.choices:
            assert one.is_required or one.default in one.option.choices, one.flag


@pytest.mark.parametrize("command", DECLARED)
def test_where_results_go_and_how_fast_they_come_does_not_determine_them(command):
    kind = options_of(command)
    if not issubclass(kind, OutputOptions):
        pytest.skip("it does not resume")
    by_name = {one.name: one.option for one in declared(kind)}
    free = {"out", "resume", "memory", "threads", "checkpoint", "no_plots", "block_size", "team_size"}
    assert not [name for name in free & by_name.keys() if by_name[name].changes_results]
