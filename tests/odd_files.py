"""Ten odd but legal ways to write each kind of text file, and what a log should say of the file.

A way takes the lines of the plain file, whose fields are separated by tabs, and gives bytes.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Sequence

Lines = Sequence[str]
Way = tuple[Callable[[Lines], bytes], str]


def plain(lines: Lines) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def edited(edit: Callable[[str], str], fact: str = "") -> Way:
    """Every line changed."""
    return lambda lines: plain([edit(line) for line in lines]), fact


def with_header(header: str, edit: Callable[[str], str], fact: str) -> Way:
    """A header before the lines, each of which is changed."""
    return lambda lines: plain([header, *map(edit, lines)]), fact


def without_family(line: str) -> str:
    return line.split("\t", 1)[1]


def chromosome(change: Callable[[str], str]) -> Way:
    """The first field of every line changed."""
    return edited(lambda line: re.sub(r"^\S+", lambda found: change(found[0]), line))


MARK: Way = (lambda lines: b"\xef\xbb\xbf" + plain(lines), "byte order mark")
CR_LF: Way = (lambda lines: plain(lines).replace(b"\n", b"\r\n"), "lines end in CR LF")
CR: Way = (lambda lines: plain(lines).replace(b"\n", b"\r"), "lines end in CR")
GZIP: Way = (lambda lines: gzip.compress(plain(lines)), "gzip")
UTF_16: Way = (lambda lines: plain(lines).decode().encode("utf-16"), "UTF-16")
TRAILING = edited(lambda line: line + " \t")
EMPTY: Way = (lambda lines: plain(lines) + b"\n \t\n", "2 empty lines at the end")
BLANKS = edited(lambda line: "  " + line.replace("\t", "   "))
REMARKS: Way = (lambda lines: plain(["# made by hand", "## version 1", *lines]), "2 lines of remarks")
BY_IID = "no column FID: FID is that of the genotypes' sample with the same IID"
TABLE: list[Way] = [
    (lambda lines: plain(["#" + lines[0], *lines[1:]]), "header: columns FID and IID"),
    edited(without_family, f"header: {BY_IID}"),
    (lambda lines: plain(["#" + without_family(lines[0]), *map(without_family, lines[1:])]), f"header: {BY_IID}"),
    REMARKS,
]
PLINK_2 = with_header(
    "#FID\tIID\tSEX\tPHENO1", lambda line: line.replace("\t0\t0\t", "\t"), "header: columns FID and IID"
)
LIST: list[Way] = [
    with_header("#FID\tIID", str, "header: columns FID and IID"),
    edited(without_family, f"no header: {BY_IID}"),
    with_header("#IID", without_family, f"header: {BY_IID}"),
    edited(lambda line: line + "\t0\t0\t1\t-9", "no header: columns FID and IID"),
]
CODE = edited(lambda line: re.sub(r"\tNA\b", "\t-9", line), "1 value of -9 is missing")
SEPARATED: Way = (lambda lines: ",".join(lines).encode() + b"\n", "commas between IDs")
ON_ONE_LINE: Way = (lambda lines: " ".join(lines).encode() + b"\n", "")
EMPTY_BETWEEN: Way = (lambda lines: plain(["", *lines[:5], "", *lines[5:]]), "")

WAYS: dict[str, list[Way]] = {
    "fam": [
        MARK, CR_LF, GZIP, UTF_16, TRAILING, EMPTY, BLANKS,
        edited(lambda line: re.sub(r"\S+$", "control", line)),
        edited(lambda line: line + "\t7"), PLINK_2,
    ],
    "bim": [
        MARK, CR_LF, GZIP, UTF_16, TRAILING, EMPTY, BLANKS,
        chromosome(lambda name: "chr" + name), chromosome(lambda name: "0" + name),
        chromosome(lambda name: name.replace("23", "x")),
    ],
    "pheno": [MARK, CR_LF, GZIP, TRAILING, EMPTY, *TABLE, CODE],
    "covar": [UTF_16, CR, GZIP, TRAILING, EMPTY, *TABLE, CODE],
    "keep": [MARK, CR_LF, GZIP, BLANKS, EMPTY, REMARKS, *LIST],
    "remove": [MARK, CR, GZIP, UTF_16, EMPTY, REMARKS, *LIST],
    "grm.id": [MARK, CR_LF, GZIP, UTF_16, TRAILING, EMPTY, *LIST],
    "extract": [
        MARK, GZIP, UTF_16, TRAILING, *((way, "") for way, _ in (CR_LF, CR, EMPTY)),
        SEPARATED, ON_ONE_LINE, EMPTY_BETWEEN,
    ],
    "images": [MARK, CR_LF, GZIP, UTF_16, TRAILING, EMPTY, *TABLE],
}  # fmt: skip
WAYS["exclude"] = WAYS["similarity_snps"] = WAYS["extract"]
COUNT = 10
"""Ways of each kind."""
