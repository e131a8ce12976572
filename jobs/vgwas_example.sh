#!/usr/bin/env bash
# A voxelwise GWAS from nothing to brain maps, in under a minute on 2 cores: genotypes and brain images are simulated in
# the MNI152 brain mask that the Python package nilearn carries (jobs/install.sh gets it), at 6 mm.
#
#   bash jobs/vgwas_example.sh [DIR]      # DIR: where data and results go; quickstart/vgwas in the checkout if left out
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/jobs/install.sh"
. "$root/jobs/env.sh"
mkdir -p "${1:-$root/quickstart/vgwas}"
cd "${1:-$root/quickstart/vgwas}"

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

python - <<'PYTHON'
import nibabel
import numpy as np
from nilearn.datasets import load_mni152_brain_mask

mask = load_mni152_brain_mask(resolution=6)
inside = np.asarray(mask.dataobj) > 0
nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), mask.affine), "mask.nii.gz")
print(f"MNI152 brain mask at 6 mm: {inside.sum():,} of {inside.size:,} voxels")
PYTHON

run mpirun -n 2 mpgls simulate --samples 500 --snps 2000 --chromosomes 5 --families 1 --seed 1 --out genes
run mpirun -n 2 mpgls simulate-images --bfile genes --mask mask.nii.gz --causal 4 --effect-radius 24 --snr 0.07 \
    --sigma-mm 6 --out brains
run mpirun -n 2 mpgls vgwas-extract --images brains.images.tsv --mask mask.nii.gz --out voxels
run mpirun -n 2 mpgls vgwas --bfile genes --maf 0.05 --voxels voxels.h5 --covar genes.covar.tsv \
    --permutations 100 --maps 2 --out vgwas

printf '\nThe SNPs that were given an effect (brains.causal.tsv):\n'
cat brains.causal.tsv
printf '\nIn %s:\n' "$PWD"
ls -l vgwas.*
