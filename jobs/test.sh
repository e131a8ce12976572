#!/usr/bin/env bash
# Everything that a change must pass: format, lint, types, unit tests, the MPI tests on 1, 2, 3 and 4 ranks, and the same
# table from the other way of installing (jobs/other_way.sh).
#
#   bash jobs/test.sh            # all of it; ends at the first stage that fails
#   MPGLS_RANKS="2 5" bash jobs/test.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
bash jobs/install.sh
. jobs/env.sh
export OMP_NUM_THREADS=1
# Several jobs share the cores: none may be bound to the first ones, and a rank that waits gives its core away.
export OMPI_MCA_hwloc_base_binding_policy=none PRTE_MCA_hwloc_default_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1

ranks=${MPGLS_RANKS:-1 2 3 4}
output=$(mktemp)
trap 'rm -f "$output"' EXIT
passed=0 failed=0 skipped=0

counted() { # the number before a word in pytest's closing line, which is the last line with " in 1.23s"
    grep -E ' in [0-9.]+s' "$output" | tail -n 1 | grep -oE "[0-9]+ $1" | cut -d' ' -f1 || true
}

closing_line() { printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"; }

stage() { # name, limit in seconds, command...
    local name=$1 limit=$2 start=$EPOCHREALTIME status=0 found
    shift 2
    printf '\n=== %s\n' "$name"
    timeout --kill-after=10 "$limit" "$@" </dev/null 2>&1 | tee "$output" || status=${PIPESTATUS[0]}
    printf '=== %s: %s, %s s\n' "$name" "$([ "$status" -eq 0 ] && echo passed || echo "FAILED (exit code $status)")" \
        "$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')"
    found=$(counted passed); passed=$((passed + ${found:-0}))
    found=$(counted failed); failed=$((failed + ${found:-0}))
    found=$(counted 'errors?'); failed=$((failed + ${found:-0}))
    found=$(counted skipped); skipped=$((skipped + ${found:-0}))
    [ "$status" -ne 124 ] || printf '=== %s: not finished after %s s\n' "$name" "$limit"
    if [ "$status" -ne 0 ]; then
        [ "$failed" -gt 0 ] || failed=1
        printf '\n'
        closing_line
        exit 1
    fi
}

stage "format" 60 ruff format --check .
stage "lint" 60 ruff check .
stage "types" 240 mypy
stage "unit tests" 1200 python -m pytest --color=no -n 2 --dist loadfile tests/unit
for n in $ranks; do
    launch=(mpirun -n "$n" python -m pytest)
    [ "$n" -gt 1 ] || launch=(python -m pytest -n 2 --dist loadfile) # two processes of one rank each
    stage "MPI tests on $n ranks" 900 "${launch[@]}" --with-mpi --color=no -p no:cacheprovider tests/mpi
done
stage "the other way of installing" 600 bash jobs/other_way.sh
printf '\n'
closing_line
