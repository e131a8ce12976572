"""Several genotype files as one study: files that would count twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpgls.errors import InputError
from mpgls.study.sources import GenotypeSource


def touch(folder: Path, *names: str) -> str:
    for name in names:
        (folder / f"c{name}.bed").touch()
    return str(folder / "c@")


@pytest.mark.parametrize(("one", "other"), [("1", "01"), ("MT", "M"), ("X", "x")])
def test_a_chromosome_that_has_two_files_is_refused(tmp_path, one, other):
    source = GenotypeSource("--bfile", touch(tmp_path, "2", one, other))
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("the file system does not tell letters by case")
    with pytest.raises(InputError, match=r"--bfile .*c@: .*c\w+ and .*c\w+ are of the same chromosome: give it once"):
        source.prefixes()


def test_other_chromosomes_have_files_of_their_own(tmp_path):
    names = ["1", "23", "X", "XY", "PAR1", "PAR2", "MT"]
    found = GenotypeSource("--bfile", touch(tmp_path, *names)).prefixes()
    assert found == [str(tmp_path / f"c{name}") for name in names]


@pytest.mark.parametrize("again", ["c1", "./c1", "c1.bed", "link"])
def test_a_list_that_names_files_twice_is_refused(tmp_path, again):
    touch(tmp_path, "1", "2")
    (tmp_path / "link.bed").symlink_to(tmp_path / "c1.bed")
    (tmp_path / "list").write_text(f"c1\nc2\n{again}\n")
    with pytest.raises(InputError, match=r"list: .*c1 and .* are the same files: give it once"):
        GenotypeSource("--bfile-list", str(tmp_path / "list")).prefixes()
