#!/usr/bin/env bash
# Set up mpgls from a bare clone: an MPI, ScaLAPACK, and a virtual environment in the checkout.
#
#   bash jobs/install.sh                 # all that the tests need
#   bash jobs/install.sh --run-only      # without the tools of the tests
#   MPGLS_INSTALL=wheels bash jobs/install.sh
#
# On Debian 12, as root or with sudo, MPI and ScaLAPACK are Debian's, and the environment is .venv/. Everywhere else they
# are wheels from PyPI (MPICH and MKL), which need no root, and the environment is .venv-wheels/. MPGLS_INSTALL=debian or
# =wheels chooses. When nothing is to do this ends within a second; it starts over from whatever is missing.
# A cluster with an MPI of its own: see docs/cluster.md.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

debian_packages=(
    libopenmpi-dev openmpi-bin            # MPI and its launcher
    libscalapack-openmpi-dev              # ScaLAPACK with the BLACS of that MPI
    libopenblas0-pthread                  # the BLAS and LAPACK under ScaLAPACK
    python3-petsc4py-real python3-slepc4py-real
    python3-mpi4py python3-h5py python3-scipy python3-venv
    plink2                                # tests compare kinships with it
    gemma-doc                             # the mouse data of jobs/quickstart.sh
)
# Debian's petsc4py is built for NumPy 1, so NumPy stays below 2.
beside_debian=(
    "numpy==1.26.4"
    "pyarrow==15.0.2"
    "setuptools==80.9.0"
    "threadpoolctl==3.8.0"
    "matplotlib==3.11.2"
    "nibabel==5.3.2"                      # brain images
    "pgenlib==0.95.1"                     # .pgen files
    "zstandard==0.25.0"                   # .bgen files that are packed by zstd
    "scikit-learn==1.5.2"                 # parcels; later releases may want another SciPy than Debian's
)
tools_beside_debian=(
    "nilearn==0.10.4"                     # tests and benches: permuted_ols, and a brain mask that it ships
    "pandas==2.2.3"                       # nilearn's
    "himalaya==0.4.6"                     # tests and benches: kernel ridge regression
    "bgen==1.10.3"                        # tests: writes .bgen files, and reads them to compare
)
tools=(
    "pytest==9.2.0"
    "pytest-mpi==0.6"
    "pytest-xdist==3.6.1"                 # two unit tests at a time: many of them wait for mpirun
    "ruff==0.17.5"
    "mypy==2.4.1"
    "pyyaml==6.0.2"                       # the test of jobs/conda/recipe.yaml
)

say() { printf 'install: %s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this step needs root and there is no sudo; ask the administrator to run: $*
install: or take wheels, which need no root: MPGLS_INSTALL=wheels bash jobs/install.sh"
    fi
}

system() { (. /etc/os-release 2>/dev/null && printf '%s %s' "${ID:-unknown}" "${VERSION_ID:-}") || true; }

chosen_way() { # debian or wheels
    case ${MPGLS_INSTALL:-} in
    debian | wheels) printf '%s' "$MPGLS_INSTALL" ;;
    "")
        if [ "$(system)" = "debian 12" ] && { [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null; }; then
            printf debian
        else
            printf wheels
        fi
        ;;
    *) fail "MPGLS_INSTALL is debian or wheels, not '$MPGLS_INSTALL'" ;;
    esac
}

missing_debian_packages() {
    local package
    for package in "${debian_packages[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || printf '%s\n' "$package"
    done
}

install_debian_packages() {
    [ "$(system)" = "debian 12" ] || fail "Debian's packages are for Debian 12, and this is '$(system)': MPGLS_INSTALL=wheels"
    local -a missing
    mapfile -t missing < <(missing_debian_packages)
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "Debian packages: ${missing[*]}"
    local -a apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    as_root "${apt[@]}" update
    as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1 ||
        { tail -n 30 "$log" >&2; fail "apt-get install failed (the end of its output is above)"; }
}

# ScaLAPACK calls libblas.so.3 and liblapack.so.3. The reference implementations would be about 50 times slower.
use_fast_blas() {
    local multiarch name current
    multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch 2>/dev/null || printf '%s-linux-gnu' "$(uname -m)")
    for name in libblas liblapack; do
        current=$(readlink -f "/usr/lib/$multiarch/$name.so.3" || true)
        case $current in
        */"$multiarch"/blas/* | */"$multiarch"/lapack/* | "")
            say "$name.so.3: from the reference implementation to OpenBLAS"
            as_root update-alternatives --set "$name.so.3-$multiarch" "/usr/lib/$multiarch/openblas-pthread/$name.so.3" >/dev/null
            ;;
        esac
    done
}

python_for_wheels() { # a Python of at least 3.10 that can make environments
    local name
    for name in ${MPGLS_PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    fail "there is no Python 3.10 or newer with the modules venv and ensurepip: load a module, install Miniforge or uv, \
and name it: MPGLS_PYTHON=/path/to/python3 bash jobs/install.sh"
}

# A copied or half-made environment is made anew; a working one is only brought up to date.
make_venv() { # python, options of venv...
    say "virtual environment $venv ($1)"
    rm -f "$stamp"
    if ! "$venv/bin/python" -c "import sys, pip; sys.exit(sys.prefix != '$venv')" 2>/dev/null; then
        rm -rf "$venv"
        "$1" -m venv "${@:2}" "$venv"
    fi
}

pip_install() {
    env -u PYTHONPATH -u PYTHONHOME "$venv/bin/python" -m pip -q --disable-pip-version-check install "$@" >"$log" 2>&1 ||
        { tail -n 30 "$log" >&2; fail "pip install failed (the end of its output is above)"; }
}

install_beside_debian() {
    make_venv /usr/bin/python3 --system-site-packages
    local -a packages=("${beside_debian[@]}")
    [ "$extent" = run ] || packages+=("${tools_beside_debian[@]}" "${tools[@]}")
    # SciPy stays Debian's: another would bring a BLAS of its own.
    pip_install "${packages[@]}" "scipy==$("$venv/bin/python" -c 'import scipy; print(scipy.__version__)')"
    pip_install --no-deps --no-build-isolation -e "$root"
}

install_wheels() {
    [ "$(uname -m)" = x86_64 ] || fail "there are no wheels of MKL for $(uname -m); docs/cluster.md says how to install here"
    local python
    python=$(python_for_wheels)
    make_venv "$python"
    if [ "$extent" = run ]; then
        pip_install -e "$root[wheels,images]"
    else
        pip_install -e "$root[wheels,images,parquet,pgen,bgen,test]" "${tools[@]}"
    fi
}

verify() {
    # shellcheck source=jobs/env.sh
    MPGLS_INSTALL=$way . "$root/jobs/env.sh"
    "$venv/bin/python" - "$way" <<'PYTHON' || fail "the installed packages do not load together (the error is above)"
import sys

import h5py, matplotlib, mpi4py, mpgls, nibabel, numpy, scipy, sklearn, threadpoolctl  # noqa: E401,F401
from mpgls.la import scalapack

scalapack.library_path()
if sys.argv[1] == "debian":
    assert numpy.__version__ < "2", f"NumPy {numpy.__version__} is too new for Debian's petsc4py"
    from petsc4py import PETSc
    from slepc4py import SLEPc  # noqa: F401

    assert numpy.dtype(PETSc.ScalarType) == "float64", "petsc4py is not the real-valued build"
PYTHON
}

wanted_stamp() { { printf '%s\n' "$root"; cat "$root/jobs/install.sh" "$root/pyproject.toml"; } | sha256sum | cut -d' ' -f1; }

is_installed() { # an environment with the tools will do for one without
    [ -x "$venv/bin/python" ] || return 1
    case "$(cat "$stamp" 2>/dev/null)" in
    "$(wanted_stamp) test" | "$(wanted_stamp) $extent") return 0 ;;
    *) return 1 ;;
    esac
}

main() {
    extent=test
    [ "${1:-}" != --run-only ] || extent=run
    exec 9<"$root/jobs" # one installation at a time in this checkout
    flock 9
    way=$(chosen_way)
    venv=$root/.venv
    [ "$way" = debian ] || venv=$root/.venv-wheels
    stamp=$venv/mpgls-install.stamp
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    if [ "$way" = debian ]; then
        install_debian_packages
        use_fast_blas
    fi
    if ! is_installed; then
        if [ "$way" = debian ]; then install_beside_debian; else install_wheels; fi
        verify
        printf '%s %s\n' "$(wanted_stamp)" "$extent" >"$stamp"
        say "done; now: . jobs/env.sh"
    fi
}

main "$@"
