#!/usr/bin/env bash
# Set up mpgls on Debian 12 from a bare clone: Debian's MPI libraries, then a virtual environment in .venv/.
#
#   bash jobs/install.sh
#
# Runs as root or with sudo. When nothing is to do it ends within a second; it starts over from whatever is missing.
# Another system (a cluster, another distribution): see docs/cluster.md.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
stamp=$venv/mpgls-install.stamp

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
python_packages=(
    "numpy==1.26.4"
    "pyarrow==15.0.2"
    "setuptools==80.9.0"
    "threadpoolctl==3.8.0"
    "matplotlib==3.11.2"
    "nibabel==5.3.2"                      # brain images
    "scikit-learn==1.5.2"                 # parcels; later releases may want another SciPy than Debian's
    "nilearn==0.10.4"                     # tests and benches: permuted_ols, and a brain mask that it ships
    "pandas==2.2.3"                       # nilearn's
    "himalaya==0.4.6"                     # tests and benches: kernel ridge regression
    "pytest==9.2.0"
    "pytest-mpi==0.6"
    "pytest-xdist==3.6.1"                 # two unit tests at a time: many of them wait for mpirun
    "ruff==0.17.5"
    "mypy==2.4.1"
)

say() { printf 'install: %s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this step needs root and there is no sudo; ask the administrator to run: $*"
    fi
}

check_system() {
    local system
    system=$(. /etc/os-release 2>/dev/null && printf '%s %s' "${ID:-unknown}" "${VERSION_ID:-}") || true
    [ "$system" = "debian 12" ] ||
        fail "this script is for Debian 12 and this system is '${system:-unknown}'; docs/cluster.md says how to install elsewhere"
}

missing_debian_packages() {
    local package
    for package in "${debian_packages[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || printf '%s\n' "$package"
    done
}

install_debian_packages() {
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

wanted_stamp() { { printf '%s\n' "$root"; cat "$root/jobs/install.sh" "$root/pyproject.toml"; } | sha256sum | cut -d' ' -f1; }

install_venv() {
    say "virtual environment $venv (Debian's /usr/bin/python3)"
    rm -f "$stamp"
    # A copied or half-made environment is made anew; a working one is only brought up to date.
    if ! "$venv/bin/python" -c "import sys, pip; sys.exit(sys.prefix != '$venv')" 2>/dev/null; then
        rm -rf "$venv"
        /usr/bin/python3 -m venv --system-site-packages "$venv"
    fi
    local -a pip=(env -u PYTHONPATH -u PYTHONHOME "$venv/bin/python" -m pip -qq --disable-pip-version-check)
    # SciPy stays Debian's: another would bring a BLAS of its own.
    "${pip[@]}" install "${python_packages[@]}" "scipy==$("$venv/bin/python" -c 'import scipy; print(scipy.__version__)')"
    "${pip[@]}" install --no-deps --no-build-isolation -e "$root"
    verify
    wanted_stamp >"$stamp"
}

verify() {
    # shellcheck source=jobs/env.sh
    . "$root/jobs/env.sh"
    "$venv/bin/python" - <<'PYTHON' || fail "the installed packages do not load together (the error is above)"
import numpy

assert numpy.__version__ < "2", f"NumPy {numpy.__version__} is too new for Debian's petsc4py"
import h5py, himalaya, matplotlib, mpi4py, mpgls, nibabel, nilearn, scipy, sklearn, threadpoolctl  # noqa: E401,F401
from petsc4py import PETSc
from slepc4py import SLEPc  # noqa: F401

assert numpy.dtype(PETSc.ScalarType) == "float64", "petsc4py is not the real-valued build"
PYTHON
}

main() {
    exec 9<"$root/jobs" # one installation at a time in this checkout
    flock 9
    check_system
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    install_debian_packages
    use_fast_blas
    if [ ! -x "$venv/bin/python" ] || [ "$(cat "$stamp" 2>/dev/null || true)" != "$(wanted_stamp)" ]; then
        install_venv
        say "done; now: . jobs/env.sh"
    fi
}

main "$@"
