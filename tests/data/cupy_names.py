"""The public names of the CuPy that runs this, with the parameters of each, as JSON; no GPU is needed.

python cupy_names.py > one.json                     with CuPy 13 in one environment, CuPy 14 in another
python cupy_names.py one.json other.json > cupy_names.json     what both have
"""

import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType

OF_DOC = re.compile(r"[\w.]*\((.*)\)(?: ->.*)?$")


def parameters(function: object) -> list[str]:
    """Of a function in Python by its signature, of one in Cython by the first line of its text."""
    import cupy

    if isinstance(function, cupy.ufunc):
        return ["out", "dtype", "casting"]
    try:
        return [one.name for one in inspect.signature(function).parameters.values() if one.name != "self"]
    except (TypeError, ValueError):
        found = OF_DOC.match((function.__doc__ or "").split("\n")[0])
        words = re.sub(r"\(.*?\)", "", found[1]).split(",") if found else []
        return [word.split("=")[0].split()[-1] for word in words if word.strip() not in ("", "self")]


def names(where: object) -> dict[str, list[str] | None]:
    """Functions have a list of parameters; None: constants and classes."""
    of_names = {name: getattr(where, name, None) for name in sorted(dir(where)) if not name.startswith("_")}
    return {
        name: None if inspect.isclass(one) or not callable(one) else parameters(one)
        for name, one in of_names.items()
        if not isinstance(one, ModuleType)
    }


def in_both(one: dict, other: dict) -> dict:
    """Names of both, with the parameters that both have."""
    return {
        name: [word for word in words if word in (other[name] or [])] if words else words
        for name, words in one.items()
        if name in other
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one, other = (json.loads(Path(path).read_text()) for path in sys.argv[1:])
        found = {where: in_both(one[where], other[where]) for where in one}
    else:
        import cupy

        found = {"cupy": names(cupy), "cupy.linalg": names(cupy.linalg), "cupy.ndarray": names(cupy.ndarray)}
    json.dump(found, sys.stdout)
    print()
