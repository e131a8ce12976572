#!/usr/bin/env bash
# Slurm on this machine alone, with Debian's daemons: the template jobs/single_trait.sbatch is stopped by SIGUSR1, then
# by the end of its time; each time it goes back to the queue, resumes, and ends with the table of a run that nobody
# stopped.
#
#   bash jobs/slurm_check.sh    # after jobs/install.sh; needs root, and slurmctld, slurmd, slurm-client and munge
#
# Where it cannot run it says "skipped" and that is no failure. It takes about five minutes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/jobs/env.sh"
skip() { printf 'skipped: %s\n' "$*"; exit 0; }

[ "$(id -u)" -eq 0 ] || skip "Slurm's daemons need root"
for program in slurmctld slurmd sbatch srun munged; do
    command -v "$program" >/dev/null || skip "there is no $program: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
done

work=$(mktemp -d)
chmod 755 "$work"
daemons=()
clean_up() {
    [ "${#daemons[@]}" -eq 0 ] || { scancel --user=root; sleep 2; kill "${daemons[@]}"; wait "${daemons[@]}"; } 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
fail() {
    printf 'FAILED: %s\n' "$*"
    tail -n 30 "$work"/*.log
    exit 1
}

# --- one node, which is also the controller -------------------------------------------------------------------------
host=$(hostname -s)
export SLURM_CONF=$work/slurm.conf
cat >"$SLURM_CONF" <<CONF
ClusterName=mpgls
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket,cred_expire=10
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 Sockets=1 CoresPerSocket=2 ThreadsPerCore=1
PartitionName=compute Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
mkdir "$work/state" "$work/spool"
srun --mpi=list 2>&1 | grep -q pmix || skip "this srun has no PMIx, so Open MPI's ranks cannot find each other"
install -d -o munge -g munge "$work/munge"
runuser -u munge -- munged --foreground --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
    --log-file="$work/munge/log" --seed-file="$work/munge/seed" >"$work/munge.log" 2>&1 &
daemons+=($!)
sleep 1
slurmctld -D >/dev/null 2>&1 &
daemons+=($!)
slurmd -D -N "$host" >/dev/null 2>&1 &
daemons+=($!)
for ((k = 0; k < 30; k++)); do
    [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ] && break
    sleep 1
done
[ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ] || { tail -n 5 "$work"/*.log; skip "Slurm's daemons do not come up here"; }
echo "$(sinfo --version): one node"

# --- the study, and the table of a run that nobody stops ------------------------------------------------------------
export OMP_NUM_THREADS=1 SCRATCH=$work/scratch
mkdir -p "$SCRATCH/cohort" "$SCRATCH/results"
cd "$SCRATCH/cohort"
quiet() { "$@" >"$work/command.log" 2>&1 || fail "$*"; }
quiet mpgls simulate --samples 301 --snps 20003 --chromosomes 3 --seed 3 --out genotypes
quiet mpgls kinship --bfile genotypes --out kinship
sed '1s/.*/FID\tIID\theight/' genotypes.pheno.tsv | cut -f 1-3 >phenotypes.tsv
cp genotypes.covar.tsv covariates.tsv
scan=(--bfile genotypes --pheno phenotypes.tsv --pheno-name height --covar covariates.tsv --grm kinship.h5 --maf 0.001)
slow=(--no-plots --precision mixed --block-size 4 --checkpoint 0)
quiet mpirun -n 2 mpgls single-trait "${scan[@]}" "${slow[@]}" --out "$SCRATCH/results/whole"

# The template: the site's modules are left out, and small blocks make the scan last.
sed -e "/^module /d; /^source .*activate/d" -e "s/^#SBATCH --account.*//; s/^#SBATCH --nodes=[0-9]*/#SBATCH --nodes=1/" \
    -e "s/--ntasks-per-node=[0-9]*/--ntasks-per-node=2/; s/--cpus-per-task=[0-9]*/--cpus-per-task=1/" \
    -e "s/^    --precision mixed/    ${slow[*]}/" "$root/jobs/single_trait.sbatch" >"$work/job.sbatch"

field() { scontrol show job "$job" | tr ' ' '\n' | sed -n "s/^$1=//p"; }
await() { # condition, seconds
    for ((k = 0; k < $2; k++)); do
        eval "$1" && return
        sleep 1
    done
    fail "not within $2 s: $1"
}
submit() { # name, change of the template, options of sbatch...
    sed -e "s|^out=.*|out=\$SCRATCH/results/$1|" -e "$2" "$work/job.sbatch" >"$work/$1.sbatch"
    job=$(sbatch --parsable --export=ALL --output="$work/$1.log" "${@:3}" "$work/$1.sbatch")
}
ends_with_the_same_table() { # name, of what it was stopped by
    await '[ "$(field JobState)" = COMPLETED ]' 300
    [ "$(field Restarts)" -ge 1 ] || fail "$1 was not requeued"
    grep -q "resume: [1-9][0-9,]* of .* blocks are done" "$work/$1.log" || fail "$1 did not resume"
    cmp "$SCRATCH/results/whole.height.tsv" "$SCRATCH/results/$1.height.tsv" || fail "$1 has another table"
    echo "$2: requeued $(field Restarts) time(s), $(grep -o "resume: .* are done" "$work/$1.log" | tail -n 1), the same bytes"
}

submit signal ''
await 'grep -q "REML log-likelihood" "$work/signal.log" 2>/dev/null' 120
sleep 3
scancel --batch --signal=USR1 "$job"
await 'grep -q "stopped by a signal; go on with:" "$work/signal.log"' 30
ends_with_the_same_table signal "SIGUSR1"

# The first start waits until too little time is left for the whole scan.
lasts=$(python -c 'import json, sys; print(int(0.6 * json.load(open(sys.argv[1]))["seconds"]) + 4)' "$SCRATCH/results/whole.json")
wait='left=$((SLURM_JOB_END_TIME - $(date +%s) - '$lasts')); [ -n "${SLURM_RESTART_COUNT:-}" ] || [ $left -le 0 ] || sleep $left'
submit limit "/--signal=/d; /mpgls doctor/d; s/^# In the background.*/$wait/" --time=1
await 'grep -q "stopped before the end of the job (SLURM_JOB_END_TIME); go on with:" "$work/limit.log" 2>/dev/null' 120
ends_with_the_same_table limit "the end of the job's time"

# Five minutes before the end of a job of one minute is when the job has just started: Slurm itself sends the signal. It
# looks twice a minute, and a fast scan would be over by then.
submit early 's/^"[^ ]* mpgls doctor.*/sleep 45/' --time=1
await '[ "$(field Restarts)" -ge 1 ]' 90
grep -q "goes back to the queue" "$work/early.log" || fail "the job did not hear the SIGUSR1 of Slurm"
scancel "$job"
echo "SIGUSR1 that Slurm sends to a job that has just started: requeued"
