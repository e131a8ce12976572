"""Who is in a voxelwise study, where files have no FID or codes of missing values."""

from __future__ import annotations

import numpy as np
from small_images import AFFINE, SHAPE, small_mask

from mpgls.study.fam import read_fam
from mpgls.study.images import create_voxels
from mpgls.study.sample_ids import with_families
from mpgls.study.voxel_study import Confounds, VoxelSource, align_voxels

N = 9
KNOWN = [(f"F{k // 2}", f"i{k}") for k in range(N)]


def test_people_without_fid_are_found_by_iid():
    assert with_families([("0", "b"), ("0", "a")], [("x", "a"), ("y", "b")]) == [("y", "b"), ("x", "a")]
    # somebody has a family, so 0 is what the others have
    assert with_families([("0", "b"), ("x", "a")], [("x", "a"), ("y", "b")]) == [("0", "b"), ("x", "a")]
    twins = [("x", "a"), ("y", "a"), ("z", "a"), ("y", "b")]
    assert with_families([("0", "a"), ("0", "b"), ("0", "c")], twins) == [("0", "a"), ("y", "b"), ("0", "c")]
    assert with_families([("0", "a")], [("0", "a")]) == [("0", "a")]


def test_a_voxel_matrix_and_tables_of_iids(tmp_path):
    fam = tmp_path / "s.fam"
    fam.write_text("".join(f"{fid} {iid} 0 0 1 1\n" for fid, iid in KNOWN))
    order = [4, 0, 8, 2, 1, 3, 5, 6, 7]
    coordinates = np.argwhere(small_mask())
    voxels = tmp_path / "v.h5"
    create_voxels(voxels, [("0", f"i{k}") for k in order], coordinates, SHAPE, AFFINE, "mask.nii")
    covar = tmp_path / "c.txt"
    rows = [f"i{k} {k * k} {k % 3} {-9 if k == 5 else k // 4}\n" for k in range(N)]
    covar.write_text("#IID age site block\n" + "".join(rows))
    confounds = Confounds.read(str(covar), (), "block", None, KNOWN, missing_codes=(-9.0,))
    assert confounds.covariates.names == ("age", "site") and len(confounds.blocks.ids) == N - 1
    assert [table.path for table in confounds.tables()] == [str(covar)] * 2
    assert all("1 value of -9 is missing" in table.summary for table in confounds.tables())
    source = VoxelSource.of_matrix(str(voxels), KNOWN)
    study = align_voxels(read_fam(fam), np.arange(N), source, confounds)
    kept = [k for k in range(N) if k != 5]
    assert study.cohort.ids == [KNOWN[k] for k in kept]
    assert [order[row] for row in study.rows] == kept
    C = np.array([[1.0, k * k, k % 3] for k in kept])
    np.testing.assert_allclose(study.Z @ (study.Z.T @ C), C, atol=1e-12)  # Z is an orthonormal basis of C
    np.testing.assert_allclose(study.Z.T @ study.Z, np.eye(3), atol=1e-13)
    np.testing.assert_array_equal(study.blocks, [k // 4 for k in kept])


def test_traits_of_voxels_with_codes(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("IID v1 v2\n" + "".join(f"i{k} {k} -9\n" for k in range(N)))
    source = VoxelSource.of_traits(str(path), ["v1,v2"], None, KNOWN, (-9.0,))
    assert source.matrix.ids == KNOWN and source.matrix.names == ("v1", "v2")
    np.testing.assert_array_equal(source.matrix.read([0, 1]), [np.arange(N), np.full(N, np.nan)])
