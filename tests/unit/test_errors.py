"""All ranks raise together, or none: with ranks that are threads of one process."""

from __future__ import annotations

from typing import Any

import pytest
from thread_ranks import on_ranks

from mpgls import errors
from mpgls.errors import InputError, MemoryPlanError, MpglsError, NumericalError, Stopped, StorageError, UsageError
from mpgls.mpi import agree, is_agreed, on_root

pytest.importorskip("mpi4py")


def agree_on(size: int, failing: dict[int, Exception]) -> list[Any]:
    return on_ranks(size, lambda comm: agree(comm, failing.get(comm.rank)))


@pytest.mark.parametrize("size", [1, 3])
def test_without_an_error_nobody_raises(size):
    assert agree_on(size, {}) == [None] * size


@pytest.mark.parametrize("kind", [UsageError, InputError, MemoryPlanError, StorageError, NumericalError, Stopped])
def test_everybody_raises_what_one_rank_raised(kind):
    for error in agree_on(3, {1: kind("line 4 of a.tsv")}):
        assert type(error) is kind and str(error) == "line 4 of a.tsv" and is_agreed(error)


def test_the_lowest_failing_rank_is_heard():
    assert {str(error) for error in agree_on(4, {2: InputError("two"), 3: UsageError("three")})} == {"two"}


def test_an_error_of_the_system_names_its_file():
    for error in agree_on(2, {1: FileNotFoundError(2, "No such file or directory", "a.bed")}):
        assert type(error) is StorageError
        assert str(error) == "cannot access a.bed: No such file or directory"


def test_a_rank_out_of_memory_is_named():
    for error in agree_on(2, {1: MemoryError("8 GiB")}):
        assert type(error) is MemoryPlanError and "rank 1 is out of memory" in str(error)


def test_an_unexpected_error_travels_with_its_traceback():
    def fail(comm):
        error = None
        try:
            assert comm.rank != 1, "surprise"
        except AssertionError as caught:
            error = caught
        agree(comm, error)

    for error in on_ranks(3, fail):
        assert type(error) is RuntimeError and "surprise" in str(error) and "test_errors.py" in str(error)


def test_an_error_is_agreed_only_after_agreeing():
    assert not is_agreed(InputError("mine alone"))


def test_on_root_gives_everybody_the_result_of_rank_0():
    calls = []
    assert on_ranks(3, lambda comm: on_root(comm, lambda: calls.append(comm.rank) or "result")) == ["result"] * 3
    assert calls == [0]


def test_on_root_raises_everywhere():
    def fail():
        raise InputError("bad file")

    assert [str(error) for error in on_ranks(3, lambda comm: on_root(comm, fail))] == ["bad file"] * 3


def test_exit_codes_are_those_documented():
    codes = {UsageError: 2, InputError: 3, MemoryPlanError: 4, StorageError: 5, NumericalError: 6, Stopped: 75}
    assert {kind: kind.exit_code for kind in codes} == codes
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MpglsError)}
    assert kinds == {MpglsError, *codes}
