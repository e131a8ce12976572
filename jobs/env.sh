# Source this from bash, from any directory:   . jobs/env.sh
# It makes mpgls, mpirun, petsc4py and slepc4py of jobs/install.sh available and leaves what you have set yourself alone.

_mpgls_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

_mpgls_prepend() { # variable, directory: put the directory first, once
    local current=${!1:-}
    case ":$current:" in
    *":$2:"*) ;;
    *) export "$1=$2${current:+:$current}" ;;
    esac
}

_mpgls_newest() { # print the newest of the directories given, if there is one
    local path found=
    for path in "$@"; do
        [ -d "$path" ] || continue
        if [ -z "$found" ] || [ "$(printf '%s\n%s\n' "$found" "$path" | sort -V | tail -n 1)" = "$path" ]; then found=$path; fi
    done
    printf '%s' "$found"
}

case "$PATH" in
"$_mpgls_root/.venv/bin:"*) ;;
*) export PATH="$_mpgls_root/.venv/bin:$PATH" ;;
esac

# Debian keeps petsc4py and slepc4py inside their builds. The pattern leaves out the 64-bit-integer builds (petsc64-*).
[ -n "${PETSC_DIR:-}" ] || PETSC_DIR=$(_mpgls_newest /usr/lib/petscdir/petsc[0-9].*/*-real)
[ -n "${SLEPC_DIR:-}" ] || SLEPC_DIR=$(_mpgls_newest /usr/lib/slepcdir/slepc[0-9].*/*-real)
if [ -n "$PETSC_DIR" ]; then export PETSC_DIR; else unset PETSC_DIR; fi
if [ -n "$SLEPC_DIR" ]; then export SLEPC_DIR; else unset SLEPC_DIR; fi
for _mpgls_dir in "${PETSC_DIR:-}" "${SLEPC_DIR:-}"; do
    if [ -d "$_mpgls_dir/lib/python3/dist-packages" ]; then
        _mpgls_prepend PYTHONPATH "$_mpgls_dir/lib/python3/dist-packages"
    fi
done

# Open MPI refuses root unless told twice, and more ranks than cores unless told once (OMPI_: version 4; PRTE_: version 5).
if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMPI_MCA_rmaps_base_oversubscribe="${OMPI_MCA_rmaps_base_oversubscribe:-1}"
export PRTE_MCA_rmaps_default_mapping_policy="${PRTE_MCA_rmaps_default_mapping_policy:-:oversubscribe}"
export OMPI_MCA_btl_base_warn_component_unused="${OMPI_MCA_btl_base_warn_component_unused:-0}"
# A program without mpirun starts no programs of its own, so Open MPI 4 need not start a daemon for them (0.3 s).
export OMPI_MCA_ess_singleton_isolated="${OMPI_MCA_ess_singleton_isolated:-1}"

# Some containers forbid reading another process's memory; Open MPI would try it for every large message and complain.
_mpgls_can_read_processes() {
    /usr/bin/python3 -SE - 2>/dev/null <<'PYTHON'
import ctypes
import os
import sys


class Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


source, target = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
wait, go = os.pipe()
child = os.fork()
if child == 0:
    os.close(go)
    os.read(wait, 1)
    os._exit(0)
here, there = (ctypes.byref(Piece(ctypes.addressof(b), 8)) for b in (target, source))
sys.exit(ctypes.CDLL(None).process_vm_readv(child, here, 1, there, 1, 0) != 8)
PYTHON
}
if [ -z "${OMPI_MCA_btl_vader_single_copy_mechanism:-}" ] && ! _mpgls_can_read_processes; then
    export OMPI_MCA_btl_vader_single_copy_mechanism=none
fi

# A kernel forced by OPENBLAS_CORETYPE can halve the speed of matrix products; MPGLS_KEEP_CORETYPE=1 keeps it.
if [ -n "${OPENBLAS_CORETYPE:-}" ] && [ -z "${MPGLS_KEEP_CORETYPE:-}" ]; then unset OPENBLAS_CORETYPE; fi

unset _mpgls_root _mpgls_dir
unset -f _mpgls_prepend _mpgls_newest _mpgls_can_read_processes
