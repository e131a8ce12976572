#!/bin/bash
# Makes the records of docs/performance.md anew, one benchmark after the other:
#
#     . jobs/env.sh
#     bash bench/record.sh [NAME...]      # NAME is bench/NAME.py; all of the list below if there is none
#     python bench/tables.py
#
# The JSON of NAME goes to bench/results/NAME.json, what it prints to record-NAME.log in $MPGLS_BENCH_DIR. A benchmark
# that fails or exceeds its limit leaves the old record, and the next one begins. The last lines say how each ended. Run
# it on a quiet machine with 2 cores. Data and peers are made in the first run, and stay in $MPGLS_BENCH_DIR.
set -uo pipefail

# name and limit in seconds, which is about three times what it takes on 2 cores of an AMD EPYC
list="
single_trait     900
teams            600
formats          600
peers           1200
ratio            600
loco            1800
strong_scaling  1200
multi_trait      600
multi_vs_single 1200
many_traits      600
low_rank        1200
vgwas           1200
ridge            300
plan_check      1800
memory           300
tiling          1200
low_rank_scaling 900
ridge_paper     1500
vgwas_detections 3600
vgwas_fwe       3600
vgwas_large     3600
"

limit_of() { awk -v name="$1" '$1 == name { print $2 }' <<<"$list"; }

names=("$@")
[ $# -gt 0 ] || mapfile -t names < <(awk 'NF { print $1 }' <<<"$list")
for name in "${names[@]}"; do
    if [ -z "$(limit_of "$name")" ]; then
        echo "record.sh: $name is not in its list of benchmarks" >&2
        exit 2
    fi
done
cd "$(dirname "$0")/.." || exit 1
unset OPENBLAS_CORETYPE OMP_NUM_THREADS
export MPGLS_BENCH_DIR=${MPGLS_BENCH_DIR:-${TMPDIR:-/tmp}/mpgls-bench-$UID}
mkdir -p "$MPGLS_BENCH_DIR"

summary="" failed=0
for name in "${names[@]}"; do
    limit=$(limit_of "$name")
    log=$MPGLS_BENCH_DIR/record-$name.log
    echo "=== $name (at most $limit s; $log)"
    start=$SECONDS
    timeout "$limit" python "bench/$name.py" --json "bench/results/$name.json" >"$log" 2>&1
    ended=$?
    case $ended in
        0) how="recorded" ;;
        124) how="stopped at its limit" failed=1 ;;
        *) how="failed with exit code $ended" failed=1 ;;
    esac
    [ $ended -eq 0 ] || tail -n 5 "$log" >&2
    summary+=$(printf '%-16s %5d s  %s' "$name" $((SECONDS - start)) "$how")$'\n'
done
printf '\n%s' "$summary"
exit $failed
