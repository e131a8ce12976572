# Source this from bash, from any directory:   . jobs/env.sh
# It makes what jobs/install.sh installed available and leaves what you have set yourself alone. Where both ways are
# installed, Debian's is taken; MPGLS_INSTALL=wheels takes the other, also in a shell that had the first.

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

_mpgls_remove() { # variable, pattern: drop the directories that match, and the variable when none is left
    local kept= path
    while IFS= read -r -d : path; do
        # shellcheck disable=SC2254
        case $path in $2) ;; *) kept=$kept:$path ;; esac
    done <<<"${!1:-}:"
    if [ -n "${kept#:}" ]; then export "$1=${kept#:}"; else unset "$1"; fi
}

_mpgls_venv=$_mpgls_root/.venv
if [ "${MPGLS_INSTALL:-}" = wheels ] || { [ -z "${MPGLS_INSTALL:-}" ] && [ ! -d "$_mpgls_venv" ]; }; then
    _mpgls_venv=$_mpgls_root/.venv-wheels
fi
_mpgls_remove PATH "$_mpgls_root/.venv*/bin"
export PATH="$_mpgls_venv/bin:$PATH"

# Debian keeps petsc4py and slepc4py inside their builds. They are of Debian's MPI, which wheels know nothing of.
for _mpgls_name in PETSC SLEPC; do
    _mpgls_dir=${_mpgls_name}_DIR
    if [ "$_mpgls_venv" = "$_mpgls_root/.venv" ]; then
        # The pattern leaves out the 64-bit-integer builds (petsc64-*).
        [ -n "${!_mpgls_dir:-}" ] || export "$_mpgls_dir=$(_mpgls_newest "/usr/lib/${_mpgls_name,,}dir/${_mpgls_name,,}"[0-9].*/*-real)"
        if [ -d "${!_mpgls_dir}/lib/python3/dist-packages" ]; then
            _mpgls_prepend PYTHONPATH "${!_mpgls_dir}/lib/python3/dist-packages"
        fi
    else
        _mpgls_remove PYTHONPATH "/usr/lib/${_mpgls_name,,}dir/*"
        _mpgls_remove "$_mpgls_dir" "/usr/lib/${_mpgls_name,,}dir/*"
    fi
    [ -n "${!_mpgls_dir:-}" ] || unset "$_mpgls_dir"
done

# Open MPI refuses root unless told twice, and more ranks than cores unless told once (OMPI_: version 4; PRTE_: version 5).
if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMPI_MCA_rmaps_base_oversubscribe="${OMPI_MCA_rmaps_base_oversubscribe:-1}"
export PRTE_MCA_rmaps_default_mapping_policy="${PRTE_MCA_rmaps_default_mapping_policy:-:oversubscribe}"
# Open MPI looks for ssh, and aborts without it, even on one node. A scheduler starts the nodes of its jobs itself.
if [ -z "${OMPI_MCA_plm:-}${SLURM_JOB_ID:-}${PBS_JOBID:-}${LSB_JOBID:-}" ] && ! command -v ssh >/dev/null; then
    export OMPI_MCA_plm=isolated
fi
export OMPI_MCA_btl_base_warn_component_unused="${OMPI_MCA_btl_base_warn_component_unused:-0}"
# A program without mpirun starts no programs of its own, so Open MPI 4 need not start a daemon for them (0.3 s).
export OMPI_MCA_ess_singleton_isolated="${OMPI_MCA_ess_singleton_isolated:-1}"

# Some containers forbid reading another process's memory; Open MPI would try it for every large message and complain.
_mpgls_can_read_processes() {
    python3 -SE - 2>/dev/null <<'PYTHON'
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

# A kernel forced by OPENBLAS_CORETYPE can halve the speed of matrix products, and an OpenBLAS that is older than the
# processor may choose a slow one by itself. MPGLS_KEEP_CORETYPE=1 leaves the variable alone.
_mpgls_kernel() { # print the kernel that OpenBLAS chooses here, if there is an OpenBLAS
    OPENBLAS_NUM_THREADS=1 /usr/bin/python3 -SE - 2>/dev/null <<'PYTHON'
import ctypes

name = ctypes.CDLL("libopenblas.so.0").openblas_get_corename
name.restype = ctypes.c_char_p
print(name().decode())
PYTHON
}
_mpgls_better_kernel() { # flags of the processor, kernel: print a kernel that uses what the processor has, if that one does not
    local best flag
    case "$2" in
    "" | SkylakeX | Cooperlake | SapphireRapids | Sapphirerapids | Zen) return ;;
    esac
    case " $1 " in
    *" clzero "*) best=Zen ;;
    *) best=Haswell ;;
    esac
    for flag in avx2 fma; do case " $1 " in *" $flag "*) ;; *) return ;; esac; done
    case "$2" in Haswell | Excavator) best=$2 ;; esac
    for flag in avx512f avx512cd avx512dq avx512bw avx512vl; do
        case " $1 " in *" $flag "*) ;; *) [ "$best" = "$2" ] || printf '%s' "$best"; return ;; esac
    done
    printf SkylakeX
}
if [ -z "${MPGLS_KEEP_CORETYPE:-}" ]; then
    unset OPENBLAS_CORETYPE
    _mpgls_flags=$(sed -n '/^flags/{s/.*: //p;q}' /proc/cpuinfo 2>/dev/null)
    case " $_mpgls_flags " in
    *" avx2 "*) _mpgls_coretype=$(_mpgls_better_kernel "$_mpgls_flags" "$(_mpgls_kernel)") ;;
    *) _mpgls_coretype= ;;
    esac
    [ -z "$_mpgls_coretype" ] || export OPENBLAS_CORETYPE="$_mpgls_coretype"
fi

unset _mpgls_root _mpgls_venv _mpgls_name _mpgls_dir _mpgls_flags _mpgls_coretype
unset -f _mpgls_prepend _mpgls_remove _mpgls_newest _mpgls_can_read_processes _mpgls_kernel _mpgls_better_kernel
