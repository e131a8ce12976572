#!/usr/bin/env bash
# Everything that a change must pass: format, lint, types, unit tests, the MPI tests on 1, 2, 3 and 4 ranks, and the same
# table from the other way of installing (jobs/other_way.sh).
#
#   bash jobs/test.sh            # all of it; once a stage has failed no other begins
#   MPGLS_RANKS="2 5" bash jobs/test.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
bash jobs/install.sh
. jobs/env.sh
export OMP_NUM_THREADS=1
# Several jobs share the cores: none may be bound to the first ones, and a rank that waits gives its core away.
export OMPI_MCA_hwloc_base_binding_policy=none PRTE_MCA_hwloc_default_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1

ranks=${MPGLS_RANKS:-4 3 2 1}
at_once=2 # stages side by side: one computes while the other waits for ranks, programs and the disk
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
declare -A name_of=() begin_of=() # of the processes of the stages that run
failures=()
passed=0 failed=0 skipped=0

stage() { # name, limit in seconds, command...: begins as soon as fewer than at_once run
    local name=$1 limit=$2
    shift 2
    [ "${#name_of[@]}" -lt "$at_once" ] || end_one
    [ "${#failures[@]}" -eq 0 ] || return 0
    printf '=== %s: begins\n' "$name"
    timeout --kill-after=10 "$limit" "$@" </dev/null >"$work/$name" 2>&1 &
    name_of[$!]=$name begin_of[$!]=$EPOCHREALTIME
}

end_one() { # wait until a stage ends; print what it wrote, and how it ended
    local process name status=0 how=passed
    wait -n -p process "${!name_of[@]}" || status=$?
    name=${name_of[$process]}
    printf '\n=== %s\n' "$name"
    cat "$work/$name"
    if [ "$status" -ne 0 ]; then
        failures+=("$name")
        how="FAILED (exit code $status$([ "$status" -ne 124 ] || printf ': not finished in time'))"
    fi
    printf '=== %s: %s, %s s\n\n' "$name" "$how" \
        "$(awk -v a="${begin_of[$process]}" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')"
    passed=$((passed + $(counted passed))) skipped=$((skipped + $(counted skipped)))
    failed=$((failed + $(counted failed) + $(counted 'errors?')))
    unset "name_of[$process]"
}

counted() { # the number before a word in pytest's closing line of the stage $name, the last with " in 1.23s"; or 0
    local found
    found=$(grep -E ' in [0-9.]+s' "$work/$name" | tail -n 1 | grep -oE "[0-9]+ $1" | cut -d' ' -f1 || true)
    printf '%d' "${found:-0}"
}

stage "format" 60 ruff format --check .
stage "lint" 60 ruff check .
stage "types" 600 mypy
stage "unit tests" 1200 python -m pytest --color=no -n 2 --dist loadfile tests/unit
stage "the other way of installing" 600 bash jobs/other_way.sh
for n in $ranks; do
    launch=(mpirun -n "$n" python -m pytest)
    [ "$n" -gt 1 ] || launch=(python -m pytest -n 2 --dist loadfile) # two processes of one rank each
    stage "MPI tests on $n ranks" 1200 "${launch[@]}" --with-mpi --color=no -p no:cacheprovider tests/mpi
done
while [ "${#name_of[@]}" -gt 0 ]; do end_one; done

[ "${#failures[@]}" -eq 0 ] || printf 'failed: %s\n' "${failures[@]}"
[ "${#failures[@]}" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "${#failures[@]}" -eq 0 ]
