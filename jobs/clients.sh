#!/usr/bin/env bash
# Programs of others read what mpgls writes: tests/unit/test_clients.py, with each program in an environment of its own.
#
#   bash jobs/clients.sh [DIRECTORY]      # of the environments, made from PyPI where they are not there yet
#
# PLINK 1.9 is taken where it is installed, as plink1.9 or plink.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
clients=$(realpath -m "${1:-$root/clients}")
cd "$root"
. jobs/env.sh

environment() { # name, packages...
    local place="$clients/$1"
    shift
    [ -e "$place/complete" ] && return
    rm -rf "$place"
    python3 -m venv "$place" && "$place/bin/pip" install --quiet "$@" && touch "$place/complete" ||
        echo "$place could not be made: its test is skipped"
}

mkdir -p "$clients"
environment gwaslab gwaslab
environment sumstats "gwas-sumstats-tools==1.0.25" "numpy<2" "click<8.2" six
environment ldsc ldsc "numpy<2" "pandas<2" "scipy<1.12"
environment pysam pysam
environment nilearn nilearn matplotlib
MPGLS_CLIENTS=$clients python3 -m pytest -q -rs tests/unit/test_clients.py
