"""The rooms of the code and the one direction of their imports, read from the source (see docs/architecture.md).

cli -> commands -> engine -> run -> {report, stream, device} -> {study, model, la} -> mpi -> errors
"""

from __future__ import annotations

import ast
import functools
import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mpgls.commands import COMMANDS

PACKAGE = Path(__file__).resolve().parents[2] / "mpgls"
FLOORS = {
    "__main__": 9,
    "__init__": 8,
    "cli": 8,
    "face": 8,
    "commands": 7,
    "engine": 6,
    "run": 5,
    "report": 4,
    "stream": 4,
    "device": 4,
    "study": 3,
    "model": 3,
    "la": 2,
    "mpi": 1,
    "errors": 0,
    "version": 0,
}
FOREIGN = {"ctypes", "_ctypes", "cffi", "numpy.ctypeslib"}
FOREIGN_HOMES = {"la/scalapack.py"}
PETSC = {"petsc4py", "slepc4py"}
PETSC_HOMES = {"la/eigen.py", "run/installation.py"}
CUPY_HOME = "device/cuda.py"


@dataclass(frozen=True)
class Import:
    """One imported module; ``late``: inside a function; ``typing``: only for the type checker."""

    file: str  # relative to the package, with forward slashes
    line: int
    module: str  # absolute, with the imported name appended when it may be a module itself
    late: bool
    typing: bool

    @property
    def room(self) -> str:
        return room_of(self.file)

    def __str__(self) -> str:
        return f"mpgls/{self.file}:{self.line} imports {self.module}"


def room_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def imports_of(file: str, source: str) -> Iterator[Import]:
    """All imports of one source file, relative ones made absolute."""
    package = ["mpgls", *file.split("/")[:-1]]

    def walk(node: ast.AST, late: bool, typing: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name, late, typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (Import(file, node.lineno, f"{module}.{alias.name}", late, typing) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from walk(child, late, True)
            for child in node.orelse:
                yield from walk(child, late, typing)
        else:
            late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, late, typing)

    return walk(ast.parse(source), False, False)


def inside(module: str, roots: set[str]) -> bool:
    """Whether ``module`` is one of ``roots`` or lies below one."""
    return any(module == root or module.startswith(root + ".") for root in roots)


def target_room(module: str) -> str | None:
    """The room of the package that an import leads to; None outside the package."""
    parts = module.split(".")
    if parts[0] != "mpgls":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else "__init__"


def upward(one: Import) -> bool:
    target = target_room(one.module)
    return target is not None and FLOORS[target] > FLOORS[one.room]


def mpi_in_study_or_model(one: Import) -> bool:
    return one.room in {"study", "model"} and inside(one.module, {"mpi4py"})


def files_in_model(one: Import) -> bool:
    return one.room == "model" and inside(one.module, {"h5py", "mpgls.study", "mpgls.stream", "mpgls.report"})


def foreign_functions(one: Import) -> bool:
    return inside(one.module, FOREIGN) and one.file not in FOREIGN_HOMES


def petsc(one: Import) -> bool:
    early = not one.late and not one.typing
    return inside(one.module, PETSC) and (one.file not in PETSC_HOMES or early)


def cupy_of_no_gpu(one: Import) -> bool:
    return inside(one.module, {"cupy", "cupyx"}) and (one.file != CUPY_HOME or not one.late)


def options_in_engine(one: Import) -> bool:
    return one.room == "engine" and one.module.startswith("mpgls.run.") and one.module.endswith("Options")


def slow_at_start(one: Import) -> bool:
    if one.late or one.typing:
        return False
    return inside(one.module, {"matplotlib"}) or (inside(one.module, {"scipy"}) and one.room != "la")


RULES = {
    upward: "imports point down: commands -> engine -> run -> {report, stream, device} -> {study, model, la} -> mpi",
    mpi_in_study_or_model: "study and model never import mpi4py, so that their tests need no launcher",
    files_in_model: "model works on plain local arrays: no files",
    foreign_functions: "la/scalapack.py is the only foreign-function file",
    cupy_of_no_gpu: "only device/cuda.py imports CuPy, inside a function: when a GPU is asked for",
    petsc: "only la/eigen.py and run/installation.py import petsc4py and slepc4py, inside functions",
    options_in_engine: "engine knows values, never the options of a command",
    slow_at_start: "matplotlib and (outside la) scipy are imported where they are used: many ranks start at once",
}


def sources() -> dict[str, str]:
    return {p.relative_to(PACKAGE).as_posix(): p.read_text("utf-8") for p in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def all_imports() -> list[Import]:
    return [one for file, source in sources().items() for one in imports_of(file, source)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_imports_keep_the_rule(rule) -> None:
    broken = [str(one) for one in all_imports() if rule(one)]
    assert not broken, RULES[rule] + "\n" + "\n".join(broken)


def test_every_file_lies_in_a_known_room() -> None:
    strangers = [file for file in sources() if room_of(file) not in FLOORS]
    assert not strangers, f"not in a room of the design: {strangers}"


def test_rooms_of_one_floor_do_not_import_in_circles() -> None:
    arrows: dict[str, dict[str, Import]] = {}
    for one in all_imports():
        target = target_room(one.module)
        if target not in (None, one.room, "__init__") and not one.typing:
            arrows.setdefault(one.room, {}).setdefault(target, one)
    circle = find_circle(arrows)
    assert not circle, "rooms import each other:\n" + "\n".join(
        str(arrows[a][b]) for a, b in itertools.pairwise(circle)
    )


def find_circle(arrows: dict[str, dict[str, Import]]) -> list[str]:
    """The rooms of one circle, the first again at the end; empty when there is none."""

    def follow(path: list[str]) -> list[str]:
        for target in arrows.get(path[-1], {}):
            if target in path:
                return [*path[path.index(target) :], target]
            if found := follow([*path, target]):
                return found
        return []

    return next((found for room in arrows if (found := follow([room]))), [])


def test_linear_algebra_never_hears_the_word_snp() -> None:
    heard = [
        f"mpgls/{file}:{number}: {line.strip()}"
        for file, source in sources().items()
        if room_of(file) == "la"
        for number, line in enumerate(source.splitlines(), 1)
        if "snp" in line.lower()
    ]
    assert not heard, "la/ is linear algebra only\n" + "\n".join(heard)


def test_study_and_model_load_without_mpi() -> None:
    """The same rule as they are imported: nothing that they lead to initialises MPI either."""
    modules = [
        "mpgls." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for file in sources()
        if room_of(file) in {"study", "model"}
    ]
    slow = "{'mpi4py', 'matplotlib', 'scipy', 'petsc4py', 'slepc4py'}"
    code = f"import sys\nimport {', '.join(modules)}\nsys.exit(', '.join({slow} & set(sys.modules)) or 0)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, f"importing study and model loads: {ended.stderr}"


def test_commands_start_without_what_they_may_not_need() -> None:
    """The same rule as they are imported: what the modules of a command lead to is loaded when its work begins."""
    slow = "{'matplotlib', 'scipy', 'h5py', 'petsc4py', 'slepc4py', 'mpi4py', 'threadpoolctl'}"
    loaded = f"options_of(name); found = {slow} & set(sys.modules)"
    code = "import sys\nfrom mpgls import __main__\nfrom mpgls.commands import COMMANDS, options_of\n"
    code += f"for name in COMMANDS:\n    {loaded}\n    if found: sys.exit(f'{{name}} loads {{found}}')"
    ended = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


OF_AN_OPTION = {
    "mpgls.engine.cost": "--dry-run",
    "mpgls.engine.probes": "--dry-run",
    "mpgls.engine.kinship_snps": "--blup",
    "mpgls.engine.snp_weights": "--blup",
    "mpgls.engine.joint_peaks": "--joint-peak",
    "mpgls.engine.ratio_scan": "--ratio snp",
}
"""Files that a single-trait scan needs for one of its options only."""


def test_a_scan_starts_without_what_its_options_did_not_ask_for() -> None:
    code = "import sys\nfrom mpgls import __main__\nfrom mpgls.commands import options_of\n"
    code += f"options_of('single-trait')\nsys.exit(', '.join({set(OF_AN_OPTION)} & set(sys.modules)) or 0)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, f"single-trait loads {ended.stderr}"


@pytest.mark.parametrize(
    ("rule", "file", "source", "is_broken"),
    [
        (upward, "la/grid.py", "from mpgls.study import plink", True),
        (upward, "la/grid.py", "def f():\n    from mpgls.commands.kinship import run", True),
        (upward, "la/grid.py", "from .. import stream", True),
        (upward, "errors.py", "import mpgls.la.grid", True),
        (upward, "la/grid.py", "from mpgls.errors import agree", False),
        (upward, "la/grid.py", "from .layout import blocks", False),
        (upward, "commands/kinship.py", "from mpgls.la import grid", False),
        (upward, "commands/kinship.py", "from mpgls import cli", True),
        (mpi_in_study_or_model, "study/plink.py", "def f():\n    from mpi4py import MPI", True),
        (mpi_in_study_or_model, "stream/reader.py", "from mpi4py import MPI", False),
        (files_in_model, "model/gls.py", "from mpgls.study.plink import Samples", True),
        (foreign_functions, "la/grid.py", "import ctypes.util", True),
        (foreign_functions, "la/scalapack.py", "import ctypes", False),
        (petsc, "la/eigen.py", "from slepc4py import SLEPc", True),
        (petsc, "la/eigen.py", "def f():\n    from slepc4py import SLEPc", False),
        (petsc, "la/eigen.py", "if TYPE_CHECKING:\n    from petsc4py import PETSc", False),
        (petsc, "la/grid.py", "def f():\n    import petsc4py", True),
        (cupy_of_no_gpu, "device/cuda.py", "def f():\n    import cupy", False),
        (cupy_of_no_gpu, "device/cuda.py", "import cupy", True),
        (cupy_of_no_gpu, "engine/device_scan.py", "def f():\n    import cupy", True),
        (options_in_engine, "engine/reml_search.py", "from mpgls.run.options import Options", True),
        (options_in_engine, "engine/reml_search.py", "from mpgls.run.world import World", False),
        (options_in_engine, "commands/plan.py", "from mpgls.run.options import Options", False),
        (slow_at_start, "model/reml.py", "from scipy import optimize", True),
        (slow_at_start, "model/reml.py", "def f():\n    from scipy import optimize", False),
        (slow_at_start, "model/reml.py", "try:\n    import scipy.special\nexcept ImportError:\n    pass", True),
        (slow_at_start, "la/matrix.py", "import scipy.linalg", False),
        (slow_at_start, "report/plots.py", "class A:\n    import matplotlib.pyplot", True),
    ],
)
def test_rules_notice(rule, file: str, source: str, is_broken: bool) -> None:
    assert any(rule(one) for one in imports_of(file, source)) is is_broken


def test_circle_is_found() -> None:
    one = Import("study/a.py", 1, "mpgls.model.b", False, False)
    assert find_circle({"study": {"model": one}, "model": {"stream": one}}) == []
    assert find_circle({"report": {"study": one}, "study": {"model": one}, "model": {"study": one}}) == [
        "study",
        "model",
        "study",
    ]


# -- what protects the design of commands/ and the names of distributions ----------------------------------------------

COMMAND_NAMES = set(COMMANDS)
LINEAR_ALGEBRA = ("numpy.linalg", "scipy.linalg", "mpgls.la.scalapack")
SUFFIX_OF = {"GridMatrix": "_grid", "SharedArray": "_node"}
"""What a variable, an attribute or a parameter of a distributed kind must end in."""


def command_of(file: str) -> str | None:
    """The command that a file of commands/ belongs to; None for what commands share."""
    parts = file.split("/")
    name = parts[1].removesuffix(".py").removesuffix("_parts") if parts[0] == "commands" and len(parts) > 1 else ""
    return name if name.replace("_", "-") in COMMAND_NAMES else None


def foreign_command(one: Import) -> bool:
    """An import of one command's file by another's."""
    parts = one.module.split(".")
    if one.room != "commands" or parts[:2] != ["mpgls", "commands"] or len(parts) < 3:
        return False
    target = command_of("/".join(["commands", *parts[2:]]))
    return target is not None and target != command_of(one.file)


def test_no_command_imports_another() -> None:
    broken = [str(one) for one in all_imports() if foreign_command(one)]
    assert not broken, "what two commands need lies in engine/ or run/\n" + "\n".join(broken)


def mathematics(file: str, source: str) -> Iterator[str]:
    """Matrix products, and calls of numpy.linalg, in one source file."""
    for node in ast.walk(ast.parse(source)):
        product = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult)
        called = isinstance(node, ast.Attribute) and ast.unparse(node) in ("np.linalg", "numpy.linalg", "scipy.linalg")
        if product or called:
            yield f"mpgls/{file}:{node.lineno}: {ast.unparse(node)}"
    for one in imports_of(file, source):
        if inside(one.module, set(LINEAR_ALGEBRA)):
            yield str(one)


def test_commands_do_no_linear_algebra() -> None:
    broken = [
        line for file, source in sources().items() if room_of(file) == "commands" for line in mathematics(file, source)
    ]
    assert not broken, "mathematics lives in engine/, model/ and la/\n" + "\n".join(broken)


def kind_made(value: ast.expr | None) -> str | None:
    """The distributed kind that an expression makes: ``GridMatrix(...)`` or ``GridMatrix.square(...)``."""
    if isinstance(value, ast.Call):
        text = ast.unparse(value.func).split(".")[0]
        return text if text in SUFFIX_OF else None
    return None


def kind_annotated(annotation: ast.expr | None) -> str | None:
    """The distributed kind that an annotation names, alone or beside None."""
    text = ast.unparse(annotation).strip("'\"").removesuffix(" | None") if annotation is not None else ""
    return text if text in SUFFIX_OF else None


def misnamed(file: str, source: str) -> Iterator[str]:
    """Variables, attributes and parameters of a distributed kind whose name does not end in its distribution."""
    for node in ast.walk(ast.parse(source)):
        named: list[tuple[ast.expr | ast.arg, str | None]] = []
        if isinstance(node, ast.Assign):
            named = [(target, kind_made(node.value)) for target in node.targets]
        elif isinstance(node, ast.AnnAssign):
            named = [(node.target, kind_annotated(node.annotation) or kind_made(node.value))]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            named = [(one, kind_annotated(one.annotation)) for one in arguments]
        for target, kind in named:
            name = target.arg if isinstance(target, ast.arg) else ast.unparse(target)
            if kind is not None and not isinstance(target, ast.Tuple) and not name.endswith(SUFFIX_OF[kind]):
                yield f"mpgls/{file}:{node.lineno}: {name} is a {kind}"


def test_a_name_ends_in_its_distribution() -> None:
    broken = [line for file, source in sources().items() for line in misnamed(file, source)]
    assert not broken, "names of distributed arrays end in _grid or _node\n" + "\n".join(broken)


def module_name(file: str) -> str:
    return "mpgls." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_files_do_not_import_in_circles() -> None:
    """Not even for the type checker: a circle means that two files are one thing, or that a third is missing."""
    files = {
        "mpgls." + file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in sources()
    }
    arrows: dict[str, dict[str, Import]] = {}
    for one in all_imports():
        here = module_name(one.file)
        target = one.module if one.module in files else one.module.rpartition(".")[0]
        if target in files and target != here and not (one.late and room_of(one.file) in ("__init__", "cli", "face")):
            arrows.setdefault(here, {}).setdefault(target, one)
    circle = find_circle(arrows)
    assert not circle, "files import each other:\n" + "\n".join(
        str(arrows[a][b]) for a, b in itertools.pairwise(circle)
    )


@pytest.mark.parametrize(
    ("check", "source", "is_broken"),
    [
        (mathematics, "def f(a, b):\n    return a @ b", True),
        (mathematics, "from scipy.linalg import blas", True),
        (mathematics, "def f(a):\n    return np.linalg.qr(a)", True),
        (mathematics, "def f(a, b):\n    return a * b", False),
        (misnamed, "Phi = GridMatrix.square(grid, 3, 1)", True),
        (misnamed, "Phi_grid = GridMatrix.square(grid, 3, 1)", False),
        (misnamed, "def f(K: SharedArray) -> None: ...", True),
        (misnamed, "def f(K_node: SharedArray | None) -> None: ...", False),
        (misnamed, "class A:\n    def f(self):\n        self.L = GridMatrix(grid, layout)", True),
    ],
)
def test_checks_of_names_and_mathematics_notice(check, source: str, is_broken: bool) -> None:
    assert bool(list(check("commands/kinship.py", source))) is is_broken


# -- the page that draws it --------------------------------------------------------------------------------------------


def drawn_arrows() -> dict[str, set[str]]:
    """The arrows of docs/architecture.md."""
    page = (PACKAGE.parent / "docs/architecture.md").read_text("utf-8")
    block = page.split("```text\n", 1)[1].split("```", 1)[0]
    pairs = (line.split("->") for line in block.strip().splitlines())
    return {room.strip(): {target.strip() for target in targets.split(",")} for room, targets in pairs}


def test_the_page_draws_the_arrows_that_there_are() -> None:
    there: dict[str, set[str]] = {}
    for one in all_imports():
        target = target_room(one.module)
        if target is not None and target not in (one.room, "version"):
            there.setdefault(one.room, set()).add(target)
    assert drawn_arrows() == there
