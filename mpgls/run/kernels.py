"""Whether each BLAS of this process uses the vector instructions that the processor has."""

from __future__ import annotations

import contextlib
import os

from mpgls.run.hardware import blas_libraries

AVX512 = frozenset({"avx512f", "avx512cd", "avx512dq", "avx512bw", "avx512vl"})
AVX2 = frozenset({"avx2", "fma"})
# The kernels of OpenBLAS and BLIS, and the values of MKL_ENABLE_INSTRUCTIONS, in lower case.
_OLD = {
    *("katmai", "coppermine", "northwood", "prescott", "banias", "core2", "penryn", "dunnington", "nehalem", "atom"),
    *("opteron", "opteron_sse3", "barcelona", "bobcat", "sandybridge", "bulldozer", "piledriver", "steamroller"),
    *("generic", "sse4_2", "avx"),
}
_WITH_AVX2 = {"haswell", "excavator", "avx2"}
# Zen 4 has AVX-512 at the width of AVX2, so a kernel of the Zen family loses little: no warning.
_VARIABLES = {"openblas": "OPENBLAS_CORETYPE", "blis": "BLIS_ARCH_TYPE", "mkl": "MKL_ENABLE_INSTRUCTIONS"}
_BEST = {"openblas": ("SkylakeX", "Haswell", "Zen"), "blis": ("skx", "haswell", "zen")}


def kernel_warning(library: str, kernel: str | None, flags: frozenset[str], forced: str = "") -> str | None:
    """A sentence when the ``kernel`` of a BLAS leaves instructions unused that the processor's ``flags`` list.

    ``library`` is threadpoolctl's name: openblas, blis or mkl, whose kernel is not known. ``forced`` is what the
    variable says by which the library is told its kernel. An unknown kernel or processor gives None.
    """
    name = (kernel or forced).lower()
    if library not in _VARIABLES:
        return None
    if flags >= AVX512 and name in _OLD | _WITH_AVX2:
        unused, best = "AVX-512", 0
    elif flags >= AVX2 and name in _OLD:
        unused, best = "AVX2", 2 if "clzero" in flags else 1  # clzero: a Zen of AMD's
    else:
        return None
    variable = _VARIABLES[library]
    if forced.lower() == name:
        who, mend = f"{variable}={forced} forces the kernel {kernel or forced} of {library}", f"unset {variable}"
    elif forced:
        who, mend = f"{library} uses the kernel {kernel} in spite of {variable}={forced}", f"use a newer {library}"
    else:
        who, mend = f"{library} chose the kernel {kernel} by itself", f"set {variable}={_BEST[library][best]}"
    return f"{who}, which leaves this processor's {unused} unused; matrix products run several times slower: {mend}"


def kernels() -> str:
    """The BLAS libraries that this process has loaded, each with its kernel: ``openblas SkylakeX``."""
    named = (f"{one['library']} {one['kernel'] or ''}".strip() for one in blas_libraries())
    return ", ".join(dict.fromkeys(named)) or "unknown"


def kernel_warnings() -> list[str]:
    """The warnings of the BLAS libraries that this process has loaded, each once."""
    flags, found = processor_flags(), []
    for one in blas_libraries():
        library, kernel = str(one["library"]), one["kernel"]
        forced = os.environ.get(_VARIABLES.get(library, ""), "")
        warning = kernel_warning(library, None if kernel is None else str(kernel), flags, forced)
        if warning is not None:
            found.append(f"{warning} ({one['path']})")
    return list(dict.fromkeys(found))


def processor_flags() -> frozenset[str]:
    """The instruction sets of the first processor; none where the kernel does not tell."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()
