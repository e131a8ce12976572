"""mpgls: MPI-parallel generalised least squares for mixed-model genome-wide association studies.

Every command is a function of the same name, with the same options, and returns a `Results`:

    import mpgls

    K = mpgls.kinship(bfile="mice", maf=0.01, out="mice_K")
    cd8 = mpgls.single_trait(bfile="mice", pheno="traits.tsv", grm="mice_K.h5", out="cd8")
    cd8.table()["LOG10P"].max()

It runs on this process alone, or on all ranks of a communicator: ``comm=MPI.COMM_WORLD``. See docs/api.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpgls.version import __version__

if TYPE_CHECKING:
    from mpgls.run.results import Results

_NAMES = (
    "kinship",
    "eigen",
    "single_trait",
    "multi_trait",
    "low_rank",
    "plan",
    "vgwas_extract",
    "vgwas",
    "ridge",
    "score",
    "export",
    "merge",
    "simulate",
    "simulate_images",
    "doctor",
)
__all__ = ["Results", "__version__", *_NAMES]


def __getattr__(name: str) -> Any:
    """A command is imported when it is first asked for."""
    if name == "Results":
        from mpgls.run.results import Results

        return Results
    if name in _NAMES:
        from mpgls.face import function_of

        made: Callable[..., Results] = function_of(name.replace("_", "-"))
        globals()[name] = made
        return made
    raise AttributeError(f"module 'mpgls' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
