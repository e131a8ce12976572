"""Blocks to and from files: asynchronous reading and writing, the result store, and a kinship on the grid."""

from __future__ import annotations

import os
import resource

import numpy as np
import pytest
from small_study import read_kinship, write_kinship, write_lines

from mpgls.engine.kinship_grid import load_kinship, save_rows, scale_to_unit_diagonal
from mpgls.errors import InputError, StorageError
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.model.null_record import NULL_DTYPE, Source, given
from mpgls.run.log import Log
from mpgls.run.scan_ledger import whole_blocks
from mpgls.run.world import World
from mpgls.stream import reader
from mpgls.stream.mark import Mark
from mpgls.stream.reader import BlockReader, RowFiles, RowRuns
from mpgls.stream.store import RECORD_DTYPE, StoreShape, block_edges, create_store, open_store, save_null
from mpgls.stream.writer import UnitWriter
from mpgls.study.checked_rows import CheckedRows
from mpgls.study.grm import open_kinship
from mpgls.study.kinship_h5 import create_kinship_h5

HEADER, ROW_BYTES, ROWS = 3, 7, 500


# -- reading ------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(comm, shared_tmp_path):
    """A file of fixed-length rows of random bytes: its path and its rows."""
    content = np.random.default_rng(1).integers(0, 256, (ROWS, ROW_BYTES), dtype=np.uint8)
    path = shared_tmp_path / "rows"
    if comm.rank == 0:
        path.write_bytes(b"abc" + content.tobytes())
    comm.Barrier()
    return path, content


def indices(*parts):
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])


SPARSE = indices([0], range(2, 5), [60], range(100, 130, 2), [499])
BLOCKS = {
    "whole": [np.arange(ROWS)],
    "in order": [np.arange(start, min(start + 64, ROWS)) for start in range(0, ROWS, 64)],
    "sparse": [SPARSE, np.arange(3, ROWS, 17), indices([ROWS - 1])],
    "with empty ones": [SPARSE[:0], SPARSE, SPARSE[:0], SPARSE[2:], SPARSE[:0]],
    "out of order": [np.arange(400, 450), np.arange(10)],
    "none": [],
}


@pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("largest_read", [2**30 - 1, 20])
def test_wanted_rows_arrive_in_order(rows, monkeypatch, blocks, largest_read):
    monkeypatch.setattr(reader, "LARGEST_READ", largest_read)
    path, content = rows
    blocks_read = BlockReader(RowFiles((path,), HEADER, ROW_BYTES), [RowRuns.of(block) for block in blocks])
    got = [(k, part.copy()) for k, part in blocks_read]
    assert [k for k, _ in got] == list(range(len(blocks)))
    for (_, part), block in zip(got, blocks, strict=True):
        np.testing.assert_array_equal(part, content[block])


def test_ranks_may_read_different_numbers_of_blocks(comm, rows):
    path, content = rows
    blocks = [np.arange(k, ROWS, 50) for k in range(comm.rank)]
    got = [
        part.copy() for _, part in BlockReader(RowFiles((path,), HEADER, ROW_BYTES), [RowRuns.of(b) for b in blocks])
    ]
    assert len(got) == comm.rank
    for part, block in zip(got, blocks, strict=True):
        np.testing.assert_array_equal(part, content[block])


def test_runs_join_over_small_gaps_only():
    runs = RowRuns.of(indices([5, 6, 9], [40]), gap=2)
    assert runs.runs == ((5, 5), (40, 1)) and runs.rows == 6
    np.testing.assert_array_equal(runs.pick, [0, 1, 4, 5])
    assert RowRuns.of(np.arange(7, 12)).pick is None
    assert RowRuns.of(np.arange(0)).rows == 0


def test_only_the_rows_asked_for_are_read(rows):
    far = BlockReader(RowFiles((rows[0],), HEADER, ROW_BYTES), [RowRuns.of(indices([0], [400]))])
    list(far)
    assert far.bytes_read == 2 * ROW_BYTES


@pytest.mark.deadline(20)
@pytest.mark.parametrize("left", [HEADER + 200 * ROW_BYTES, HEADER + 300 * ROW_BYTES + 2, HEADER + 350 * ROW_BYTES - 1])
def test_a_file_that_ends_early(comm, rows, left):
    """Open MPI would wait for ever for bytes beyond the end."""
    path, content = rows
    blocks = BlockReader(
        RowFiles((path,), HEADER, ROW_BYTES), [RowRuns.of(np.arange(k, k + 100)) for k in (0, 100, 250)]
    )
    stream = iter(blocks)
    np.testing.assert_array_equal(next(stream)[1], content[:100])
    comm.Barrier()
    if comm.rank == 0:
        os.truncate(path, left)
    comm.Barrier()
    with pytest.raises(StorageError, match="rows ended early in block 2: it was changed"):
        list(stream)


def test_a_file_that_is_not_there(comm, shared_tmp_path):
    with pytest.raises(StorageError, match=r"cannot read .*nothing"):
        BlockReader(RowFiles((shared_tmp_path / "nothing",), HEADER, ROW_BYTES), [])


# -- the result store ---------------------------------------------------------------------------------------------

SNPS, BLOCK = 103, 10
INDEX = np.arange(SNPS, dtype=np.int64) * 3 + 1
MARK = Mark({"command": "test", "options": {"--h2": 0.5}})


def shape_of(index, block, parts=1, **covariates):
    return StoreShape(index, block, block_edges(index.size, block), covariates, parts)


@pytest.fixture
def store(comm, shared_tmp_path):
    path, shape = shared_tmp_path / "o.h5", shape_of(INDEX, BLOCK, parts=2, a=["intercept"], b=["intercept", "age"])
    made = create_store(path, shape, MARK, {"test": "wald"}) if comm.rank == 0 else None
    return comm.bcast(made, root=0)


def records(positions):
    """Records that tell their position."""
    made = np.zeros(len(positions), dtype=RECORD_DTYPE)
    made["beta"], made["n"] = positions, positions
    return made


def write_blocks(store, trait, blocks, **options):
    """Write ``blocks``; returns the writer, still open."""
    place = store.traits[trait]
    writer = UnitWriter(store.path, **options)
    for k in blocks:
        positions = store.block_range(k)
        offset = place.records_offset + positions.start * RECORD_DTYPE.itemsize
        writer.write([(offset, records(positions)[None])], place.sum_offset(k))
    return writer


def test_all_ranks_write_one_trait(comm, store):
    write_blocks(store, 1, range(comm.rank, store.blocks, comm.size)).close()
    comm.Barrier()
    written = open_store(store.path)
    assert written.traits[1].done.all() and not written.traits[0].done.any()
    np.testing.assert_array_equal(written.read(1, 0, SNPS), records(range(SNPS)))
    np.testing.assert_array_equal(written.read(1, 17, 23), records(range(17, 23)))
    with pytest.raises(StorageError, match="block 0 of trait 'a' is not what was written"):
        written.read(0, 0, SNPS)


def test_the_store_is_ordinary_hdf5(comm, store):
    write_blocks(store, 0, range(comm.rank, store.blocks, comm.size)).close()
    comm.Barrier()
    import h5py

    with h5py.File(store.path, "r") as file:
        np.testing.assert_array_equal(file["traits/a/records"]["beta"], np.arange(SNPS))
        np.testing.assert_array_equal(file["index"], INDEX)


def test_a_block_is_marked_done_after_its_data_only(comm, store):
    """Before the checkpoint the data may be there, the mark is not; afterwards both are."""
    mine = [k for k in range(store.blocks) if k % comm.size == comm.rank]
    writer = write_blocks(store, 0, mine, checkpoint_seconds=1e9)
    assert not open_store(store.path).traits[0].done[mine].any()
    writer.checkpoint()
    assert open_store(store.path).traits[0].done[mine].all()
    positions = store.block_range(mine[-1])
    np.testing.assert_array_equal(store.read(0, positions.start, positions.stop), records(positions))
    writer.close()


def test_data_are_synced_before_they_are_marked(comm, store, monkeypatch):
    marks_at_sync = []
    sync = os.fsync

    def watched(descriptor):
        marks_at_sync.append(int(open_store(store.path).traits[0].done[comm.rank]))
        sync(descriptor)

    writer = write_blocks(store, 0, [comm.rank], checkpoint_seconds=1e9)
    monkeypatch.setattr(os, "fsync", watched)
    writer.close()
    assert marks_at_sync[0] == 0
    assert open_store(store.path).traits[0].done[comm.rank] == 1


def test_a_checkpoint_after_every_block_when_asked(comm, store):
    writer = write_blocks(store, 0, [comm.rank], checkpoint_seconds=0)
    assert open_store(store.path).traits[0].done[comm.rank] == 1
    writer.close()


@pytest.mark.parametrize("block", [0, 4, 10])
def test_a_flipped_bit_is_seen_wherever_it_is(comm, store, block):
    write_blocks(store, 0, range(comm.rank, store.blocks, comm.size)).close()
    comm.Barrier()
    offset = store.traits[0].records_offset + (store.block_range(block).start + 1) * RECORD_DTYPE.itemsize + 6
    if comm.rank == 0:
        with open(store.path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 4]))
    comm.Barrier()
    assert [store.is_whole(0, k) for k in range(store.blocks)] == [k != block for k in range(store.blocks)]
    with pytest.raises(StorageError, match=f"block {block} of trait 'a' is not what was written"):
        store.read(0, store.block_range(block).stop - 1, store.block_range(block).stop)
    found = whole_blocks(store, World(comm, Log.silent()))
    assert not found.traits[0].done.any(), "as of the opening nothing was done"
    found = whole_blocks(open_store(store.path), World(comm, Log.silent()))
    assert np.flatnonzero(~found.traits[0].done).tolist() == [block]


def test_a_disk_that_fills_up_is_a_sentence(comm, store):
    """Beyond the limit of the process a write fails, as it does on a full disk."""
    writer = UnitWriter(store.path, checkpoint_seconds=1e9)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*o\.h5: File too large"):
            writer.write([(store.traits[0].records_offset, records(range(10))[None])], store.traits[0].sum_offset(0))
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not open_store(store.path).traits[0].done.any()


def test_the_index_is_mapped_from_the_file(comm, store):
    assert isinstance(store.index, np.memmap) and not store.index.flags.writeable
    np.testing.assert_array_equal(store.index, INDEX)
    assert (store.count, store.blocks, store.block_range(10)) == (SNPS, 11, range(100, 103))


def test_an_empty_store(comm, shared_tmp_path):
    path = shared_tmp_path / f"empty{comm.rank}.h5"
    store = create_store(path, shape_of(INDEX[:1], 5, a=["intercept"]), MARK, {})
    assert store.blocks == 1 and not store.traits[0].done.any()


def test_a_store_resumes_with_its_own_mark_only(comm, store):
    again = open_store(store.path, MARK)
    assert again.traits[0].name == "a" and again.attributes["test"] == "wald"
    with pytest.raises(InputError, match=r"o\.h5 was made from other inputs or options.*--h2 was 0.5, now it is 0.25"):
        open_store(store.path, Mark({"command": "test", "options": {"--h2": 0.25}}))


def test_a_store_of_another_version_is_refused_by_name(comm, store):
    import h5py

    if comm.rank == 0:
        with h5py.File(store.path, "r+") as file:
            file.attrs["version"] = 1
    comm.Barrier()
    with pytest.raises(InputError, match=r"o\.h5 is a store of another version of mpgls \(format mpgls-results 1"):
        open_store(store.path, MARK)


def test_null_models_are_kept_each_at_its_place(comm, store):
    """What is unknown stays so: nothing else changes."""
    record = given(0.25)
    record["s2"], record["df"] = 2.0, 7
    if comm.rank == 0:
        save_null(store, 1, 0, given(0.5), np.full((2, 1), np.nan))
        save_null(store, 0, 1, record, np.array([[1.0, 2.0], [0.1, 0.2]]))
    comm.Barrier()
    nulls = open_store(store.path, MARK).nulls
    assert nulls.records.dtype == NULL_DTYPE and nulls.records.shape == (2, 2)
    assert nulls.records["source"].tolist() == [[Source.UNKNOWN, Source.GIVEN], [Source.GIVEN, Source.UNKNOWN]]
    np.testing.assert_array_equal(nulls.records["h2"], [[np.nan, 0.25], [0.5, np.nan]])
    np.testing.assert_array_equal(nulls.records["s2"], [[np.nan, 2.0], [np.nan, np.nan]])
    assert nulls.records["df"].tolist() == [[0, 7], [0, 0]]
    assert nulls.covariates == [("intercept",), ("intercept", "age")]
    assert np.isnan(nulls.effects[0]).all() and nulls.effects[0].shape == (2, 2, 1)
    np.testing.assert_array_equal(nulls.effects[1][0], [[1.0, 2.0], [0.1, 0.2]])
    assert np.isnan(nulls.effects[1][1]).all()


def test_a_file_that_is_no_store(comm, shared_tmp_path):
    path = shared_tmp_path / "other"
    if comm.rank == 0:
        write_kinship(f"{path}.h5", [("f", "i")], np.eye(1))
        path.write_text("text\n")
    comm.Barrier()
    with pytest.raises(InputError, match="not a result store"):
        open_store(f"{path}.h5")
    with pytest.raises(InputError, match="not an HDF5 file"):
        open_store(path)
    with pytest.raises(StorageError, match="no result store"):
        open_store(shared_tmp_path / "nothing.h5")
    with pytest.raises(StorageError, match="cannot write"):
        create_store(shared_tmp_path / "no" / "o.h5", shape_of(INDEX, 1, a=["intercept"]), MARK, {})


# -- a kinship on the grid ----------------------------------------------------------------------------------------


def kinship_of(n, seed=1):
    G = np.random.default_rng(seed).standard_normal((n, 2 * n))
    return G @ G.T / n


def whole(A):
    """The matrix of the grid on every rank."""
    collected = np.zeros(A.shape)
    for rows, cols, local in A.grid.comm.allgather((A.row_indices, A.col_indices, A.local)):
        collected[np.ix_(rows, cols)] = local
    return collected


def names(n):
    return [("f", f"i{k}") for k in range(n)]


@pytest.mark.parametrize("form", ["square", "lower triangle"])
@pytest.mark.parametrize("n, block", [(1, 4), (41, 3), (67, 64)])
def test_any_samples_in_any_order_are_loaded(comm, shared_tmp_path, form, n, block):
    K = kinship_of(n).astype(np.float32).astype(np.float64)
    path = shared_tmp_path / ("k.h5" if form == "square" else "k.grm.bin")
    if comm.rank == 0:
        if form == "square":
            write_kinship(path, names(n), K)
        else:
            K[np.tril_indices(n)].astype("<f4").tofile(path)
            write_lines(shared_tmp_path / "k.grm.id", names(n))
    comm.Barrier()
    kinship = open_kinship(path)
    for index in (np.arange(n), np.random.default_rng(2).permutation(n)[: n // 2 + 1]):
        with ProcessGrid(comm) as grid:
            Phi_grid = GridMatrix.square(grid, index.size, block)
            load_kinship(Phi_grid, kinship, index)
            np.testing.assert_array_equal(whole(Phi_grid), K[np.ix_(index, index)])


@pytest.mark.parametrize("n, block", [(1, 4), (41, 3), (67, 64)])
def test_a_saved_matrix_reads_back(comm, shared_tmp_path, n, block):
    K, path = kinship_of(n), shared_tmp_path / "k.h5"
    file = comm.bcast(create_kinship_h5(path, names(n), {"method": "x", "snps": 1}) if comm.rank == 0 else None)
    with ProcessGrid(comm) as grid:
        K_grid = GridMatrix.square(grid, n, block)
        K_grid.local[...] = K[np.ix_(K_grid.row_indices, K_grid.col_indices)]
        save_rows(K_grid, file.rows)
        comm.Barrier()
        np.testing.assert_array_equal(read_kinship(path), K)


def test_saving_where_nothing_is_stops_every_rank(comm, shared_tmp_path):
    with ProcessGrid(comm) as grid:
        K_grid = GridMatrix.square(grid, 5, 2)
        with pytest.raises(StorageError, match="nothing"):
            save_rows(K_grid, CheckedRows(str(shared_tmp_path / "nothing"), 0, 5, 5, 5, 200))


def test_scaling_to_unit_diagonal(comm):
    K = kinship_of(13)
    with ProcessGrid(comm) as grid:
        K_grid = GridMatrix.square(grid, 13, 2)
        K_grid.local[...] = K[np.ix_(K_grid.row_indices, K_grid.col_indices)]
        assert scale_to_unit_diagonal(K_grid, "K.h5") == pytest.approx(np.trace(K) / 13, rel=1e-13)
        np.testing.assert_allclose(whole(K_grid), K / (np.trace(K) / 13), rtol=1e-13)
        K_grid.local *= -1.0
        with pytest.raises(InputError, match="not positive"):
            scale_to_unit_diagonal(K_grid, "K.h5")
