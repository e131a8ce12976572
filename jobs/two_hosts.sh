#!/usr/bin/env bash
# Two hosts on one machine, as network namespaces with a link between them: what a job does when it spans them, when a
# rank on the other host is killed, and when the link is dead.
#
#   bash jobs/two_hosts.sh      # after jobs/install.sh; needs root, `ip netns` (iproute2) and Open MPI
#
# Where it cannot run it says "skipped" and that is no failure.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/jobs/env.sh"
skip() { printf 'skipped: %s\n' "$*"; exit 0; }

[ "$(id -u)" -eq 0 ] || skip "network namespaces need root"
command -v ip >/dev/null || skip "there is no ip: apt-get install iproute2"
mpirun --version 2>/dev/null | grep -q "Open MPI" || skip "the hosts are started by Open MPI's mpirun, and here is another"

work=$(mktemp -d)
one=mpgls-one-$$ two=mpgls-two-$$
clean_up() {
    ip netns pids "$two" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
    ip netns pids "$one" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
    ip netns del "$one" 2>/dev/null || true
    ip netns del "$two" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
ip netns add "$one" 2>/dev/null || skip "network namespaces cannot be made here (ip netns add)"
ip netns add "$two"
ip link add "m$$a" netns "$one" type veth peer name "m$$b" netns "$two" 2>/dev/null || skip "the kernel has no veth links"
ip -n "$one" addr add 10.77.0.1/24 dev "m$$a"
ip -n "$two" addr add 10.77.0.2/24 dev "m$$b"
for host in "$one" "$two"; do ip -n "$host" link set lo up; done
ip -n "$one" link set "m$$a" up
ip -n "$two" link set "m$$b" up

# What mpirun takes for ssh: the address of a host, then a command. Each host has a name of its own.
cat >"$work/agent" <<AGENT
#!/bin/bash
while [[ \$1 == -* ]]; do shift; done
case \$1 in 10.77.0.1) name=$one ;; *) name=$two ;; esac
shift
exec ip netns exec "\$name" unshare --uts bash -c 'hostname "\$0"; eval "\$@"' "\$name" "\$@"
AGENT
chmod +x "$work/agent"

export OMP_NUM_THREADS=1 OMPI_MCA_plm=rsh OMPI_MCA_plm_rsh_agent=$work/agent
# No message may find another way than the link, and a rank that waits leaves its core to others.
export OMPI_MCA_btl=self,vader,tcp OMPI_MCA_pml=ob1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
cd "$work"

on_one() { mpirun -n 4 mpgls "$@"; }
on_two() { # two ranks on each host, started from the first one
    exec ip netns exec "$one" unshare --uts bash -c 'hostname "$0"; exec mpirun -H 10.77.0.1:2,10.77.0.2:2 -n 4 mpgls "$@"' "$one" "$@"
}
quiet() { "$@" >"$work/output" 2>&1 || { cat "$work/output"; exit 1; }; }
now() { date +%s.%N; }
since() { awk -v start="$1" -v end="$(now)" 'BEGIN { printf "%.1f", end - start }'; }
fail() { printf 'FAILED: %s\n' "$*"; cat "$work/output"; exit 1; }

quiet mpgls simulate --samples 301 --snps 20003 --chromosomes 3 --seed 3 --out sim
quiet mpgls kinship --bfile sim --out K
awk -F'\t' -v OFS='\t' 'NR == 1 { print $1, $2, "A", "B", "C" } NR > 1 { print $1, $2, $3, $3 * $3, NR % 7 }' sim.pheno.tsv >traits.tsv
single=(single-trait --bfile sim --grm K.h5 --no-plots --team-size 2)
multi=(multi-trait --bfile sim --grm K.h5 --pheno traits.tsv --no-plots --p-threshold 0.01)

quiet on_one "${single[@]}" --out single_one
quiet on_one "${multi[@]}" --out multi_one
for kind in single multi; do
    declare -n arguments=$kind
    (on_two "${arguments[@]}" --out "${kind}_two") >"$work/output" 2>&1 || fail "$kind on two hosts"
    grep -q "4 ranks on 2 node(s)" "${kind}_two.log" || fail "$kind did not run on two hosts"
    for table in "${kind}_one".*.tsv; do
        cmp "$table" "${table/_one/_two}" || fail "$table differs on two hosts"
    done
    echo "$kind-trait on two hosts: the bytes of one host"
done

interrupted() { # name, options...: start a slow scan on both hosts; it has begun to mark blocks when this returns
    (on_two "${single[@]}" --block-size 4 --checkpoint 0 --out "$@") >"$work/output" 2>&1 &
    job=$!
    for ((k = 0; k < 600; k++)); do
        kill -0 "$job" 2>/dev/null || fail "the scan was over before it could be interrupted"
        grep -q "REML log-likelihood" "$1.log" 2>/dev/null && return
        sleep 0.1
    done
    fail "the scan did not begin"
}
ranks_on() { # host
    local pid
    for pid in $(ip netns pids "$1"); do
        cat "/proc/$pid/cmdline" 2>/dev/null | tr '\0' '\n' | grep -qx "single-trait" || continue
        case $(cat "/proc/$pid/comm" 2>/dev/null) in mpgls | python*) echo "$pid" ;; esac
    done
}
ended() { # seconds: within them the job ends, after $took with $status
    for ((k = 0; k < 10 * $1; k++)); do kill -0 "$job" 2>/dev/null || break; sleep 0.1; done
    took=$(since "$start")
    kill -0 "$job" 2>/dev/null && fail "the job did not end within $1 s"
    status=0
    wait "$job" || status=$?
}

interrupted killed
start=$(now)
kill -9 "$(ranks_on "$two" | head -n 1)"
ended 10
[ "$status" -ne 0 ] || fail "a job whose rank was killed ended with 0"
echo "a killed rank on the other host: the job ended after $took s"

# With Open MPI's own settings the link is noticed by the ranks alone. They end; mpirun waits on for the other host.
stall=${STALL:-20}
interrupted link --stall "$stall"
start=$(now)
ip -n "$two" link set "m$$b" down
for ((k = 0; k < 10 * stall; k++)); do [ -n "$(ranks_on "$one")$(ranks_on "$two")" ] || break; sleep 0.1; done
took=$(since "$start")
[ -z "$(ranks_on "$one")$(ranks_on "$two")" ] || fail "ranks are there after --stall $stall"
grep "^mpgls" "$work/output" || fail "nobody said why"
echo "a dead link with --stall $stall: the ranks on both hosts ended after $took s"
ip netns pids "$one" | xargs -r kill -9
wait "$job" 2>/dev/null || true
ip -n "$two" link set "m$$b" up

# With keepalives that are shorter than --stall, mpirun notices it and ends everything.
export OMPI_MCA_oob_tcp_keepalive_time=5 OMPI_MCA_oob_tcp_keepalive_intvl=2 OMPI_MCA_oob_tcp_keepalive_probes=2
interrupted keepalive --stall "$stall"
start=$(now)
ip -n "$two" link set "m$$b" down
ended "$stall"
[ "$status" -ne 0 ] || fail "a job whose link was dead ended with 0"
echo "a dead link with keepalives of 9 s: mpirun ended after $took s with $status"
for ((k = 0; k < 10 * stall; k++)); do [ -n "$(ranks_on "$two")" ] || break; sleep 0.1; done
[ -z "$(ranks_on "$two")" ] || fail "ranks are left on the other host"
