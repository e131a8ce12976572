"""Which kernels of a BLAS leave instructions of the processor unused: the warning, and what jobs/env.sh sets."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from mpgls.run.kernels import AVX2, AVX512, kernel_warning

ROOT = Path(__file__).resolve().parents[2]
FMA = AVX2 | {"sse4_2", "avx"}
WIDE = FMA | AVX512
ZEN = FMA | {"clzero"}
OLD = frozenset({"sse2", "sse4_2"})
KERNELS = [
    ("openblas", "Prescott", WIDE, "", "chose the kernel Prescott by itself.*AVX-512.*set OPENBLAS_CORETYPE=SkylakeX$"),
    ("openblas", "Nehalem", WIDE, "", "OPENBLAS_CORETYPE=SkylakeX$"),
    ("openblas", "Haswell", WIDE, "", "OPENBLAS_CORETYPE=SkylakeX$"),
    ("openblas", "SkylakeX", WIDE, "", None),
    ("openblas", "Cooperlake", WIDE, "", None),
    ("openblas", "SapphireRapids", WIDE, "", None),
    ("openblas", "Zen", WIDE | ZEN, "", None),
    ("openblas", "Prescott", FMA, "", "AVX2.*OPENBLAS_CORETYPE=Haswell$"),
    ("openblas", "Sandybridge", FMA, "", "OPENBLAS_CORETYPE=Haswell$"),
    ("openblas", "Sandybridge", FMA | {"avx512f"}, "", "OPENBLAS_CORETYPE=Haswell$"),
    ("openblas", "Barcelona", ZEN, "", "OPENBLAS_CORETYPE=Zen$"),
    ("openblas", "Haswell", FMA, "", None),
    ("openblas", "Zen", ZEN, "", None),
    ("openblas", "Prescott", OLD, "", None),
    ("openblas", "neoversen1", frozenset(), "", None),
    ("openblas", "Haswell", WIDE, "haswell", "OPENBLAS_CORETYPE=haswell forces.*AVX-512.*: unset OPENBLAS_CORETYPE$"),
    ("openblas", "Prescott", FMA, "Prescott", "OPENBLAS_CORETYPE=Prescott forces.*AVX2.*: unset"),
    ("openblas", "Prescott", WIDE, "SkylakeX", "in spite of OPENBLAS_CORETYPE=SkylakeX.*use a newer openblas"),
    ("blis", "sandybridge", WIDE, "", "BLIS_ARCH_TYPE=skx$"),
    ("blis", "generic", ZEN, "", "BLIS_ARCH_TYPE=zen$"),
    ("blis", "zen3", ZEN, "", None),
    ("mkl", None, WIDE, "", None),
    ("mkl", None, WIDE, "AVX2", "MKL_ENABLE_INSTRUCTIONS=AVX2 forces.*AVX-512"),
    ("mkl", None, WIDE, "AVX512", None),
]


@pytest.mark.parametrize(("library", "kernel", "flags", "forced", "expected"), KERNELS)
def test_a_kernel_that_leaves_instructions_unused(library, kernel, flags, forced, expected):
    warning = kernel_warning(library, kernel, flags, forced)
    assert warning is None if expected is None else warning is not None and re.search(expected, warning), warning


@pytest.mark.parametrize(
    ("kernel", "flags", "expected"),
    [(k, flags, end) for name, k, flags, forced, end in KERNELS if name == "openblas" and not forced],
)
def test_the_environment_sets_the_kernel_that_the_warning_names(kernel, flags, expected):
    source = (ROOT / "jobs" / "env.sh").read_text("utf-8")
    function = re.search(r"^_mpgls_better_kernel\(\) \{.*?^\}", source, re.M | re.S)
    assert function is not None
    command = f'{function[0]}\n_mpgls_better_kernel "$1" "$2"'
    made = subprocess.run(
        ["bash", "-c", command, "bash", " ".join(sorted(flags)), kernel], capture_output=True, text=True, check=False
    ).stdout
    named = re.search(r"OPENBLAS_CORETYPE=(\w+)", expected or "")
    assert made == (named[1] if named else "")
