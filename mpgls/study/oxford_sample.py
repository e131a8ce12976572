"""The samples of a .bgen, in an Oxford .sample beside it."""

from __future__ import annotations

from mpgls.errors import InputError
from mpgls.study.sample_ids import NO_FAMILY, OncePerSample, SampleId
from mpgls.study.text import TextLines


def read_sample(path: str) -> list[SampleId]:
    """FID and IID of each sample: columns ID_1 and ID_2 of an Oxford .sample, after its two lines of header.

    Raises InputError for another header, a line of less than two fields, or a sample that is there twice; StorageError.
    """
    lines = iter(TextLines(path, remarks=False))
    names = next(lines, (1, ""))[1].split()
    kinds = next(lines, (2, ""))[1].split()
    if names[:1] not in (["ID_1"], ["ID"]) or kinds[:1] != ["0"]:
        raise InputError(f"{path} is not a .sample: its first line begins with ID_1 ID_2, and its second with 0 0")
    both, once = names[1:2] == ["ID_2"], OncePerSample(path)
    for number, line in lines:
        fields = line.split()
        if len(fields) < 1 + both:
            raise InputError(f"{path}, line {number} has no ID_2")
        once.add((fields[0], fields[1]) if both else (NO_FAMILY, fields[0]), number)
    if not once.line_of:
        raise InputError(f"{path} lists no sample")
    return list(once.line_of)
