#!/usr/bin/env bash
# Install mpgls the other way (wheels beside Debian's packages, or the reverse) and see that both give the same table.
#
#   bash jobs/other_way.sh      # after jobs/install.sh; part of jobs/test.sh
#
# Where the other way cannot be had (no PyPI; no Debian 12, or neither root nor sudo) it says "skipped" and that is no failure.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1

skip() { printf 'skipped: %s\n' "$*"; exit 0; }

pypi_answers() { env -u PYTHONPATH timeout 60 python -m pip -q download --no-deps -d "$work" threadpoolctl >/dev/null 2>&1; }

scan() { # way, commands before the scan: kinship and scan of the mice on 2 ranks, into the folder of that name
    (
        # shellcheck source=jobs/env.sh
        MPGLS_INSTALL=$1 . "$root/jobs/env.sh"
        mkdir "$work/$1" && cd "$work/$1"
        for arguments in "${@:2}" "kinship --bfile ../mice --maf 0.01 --geno 0.05 --out K" \
            "single-trait --bfile ../mice --grm K.h5 --maf 0.01 --h2 0.61 --no-plots --out cd8"; do
            # shellcheck disable=SC2086
            mpirun -n 2 mpgls $arguments >"$work/output" 2>&1 || { cat "$work/output"; exit 1; }
            grep -E '^ *(library|ScaLAPACK|verdict)' "$work/output" || true
        done
    )
}

. "$root/jobs/env.sh"
if [ "$(readlink -f "$(dirname "$(command -v python)")/..")" = "$root/.venv" ]; then
    first=debian other=wheels
    [ "$(uname -m)" = x86_64 ] || skip "there are no wheels of MKL for $(uname -m)"
    pypi_answers || skip "PyPI cannot be reached"
else
    first=wheels other=debian
    [ "$(. /etc/os-release && printf '%s %s' "$ID" "${VERSION_ID:-}")" = "debian 12" ] || skip "this is not Debian 12"
    [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null || skip "Debian's packages need root"
fi
if ! MPGLS_INSTALL=$other bash "$root/jobs/install.sh" --run-only; then
    pypi_answers || skip "PyPI cannot be reached any more"
    exit 1
fi
mice=$(python "$root/jobs/mouse_data.py" 2>&1) || skip "$mice"
for kind in bed bim fam; do gunzip -c "$mice/mouse_hs1940.$kind.gz" >"$work/mice.$kind"; done
scan "$first"
scan "$other" doctor

python - "$work/$first/cd8.pheno.tsv" "$work/$other/cd8.pheno.tsv" <<'PYTHON'
import sys

one, two = ([line.rstrip("\n").split("\t") for line in open(path, encoding="utf-8")] for path in sys.argv[1:])
assert one[0] == two[0] and len(one) == len(two), "the tables have other columns or rows"
worst = 0.0
for row, twin in zip(one[1:], two[1:]):
    a, b = (dict(zip(one[0], fields)) for fields in (row, twin))
    for name in ("CHR", "POS", "ID", "EA", "NEA", "EAF", "N", "NOTE"):
        assert a[name] == b[name], f"{a['ID']}: {name} is {a[name]} and {b[name]}"
    if a["SE"] == "NA":
        assert row == twin, f"{a['ID']} is NA in one table"
        continue
    beta, se, stat, log10p = ((float(a[k]), float(b[k])) for k in ("BETA", "SE", "STAT", "LOG10P"))
    for (x, y), size in ((beta, se[0]), (se, se[0]), (stat, max(1.0, abs(stat[0]))), (log10p, max(1.0, log10p[0]))):
        worst = max(worst, abs(x - y) / size)
print(f"{len(one) - 1} SNPs: the two tables differ by at most {worst:.1e}")
assert worst < 1e-9, "that is more than 1e-9"
PYTHON
