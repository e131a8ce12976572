"""Parts of files' names that are made of IDs: readable, and no two files of a run have the same name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from mpgls.report.table_formats import ALL_ENDINGS

LONGEST = 120
"""Characters of an ID that a file's name keeps; a name has 255 bytes in all."""
LONGEST_PART = LONGEST + len(".row1234567890")
"""The same of a part with what tells it from another one."""
BESIDE_TABLE = (".loco.tsv", ".peaks.tsv", ".manhattan.png", ".qq.png", ".blup.tsv", ".weights.tsv")
ENDINGS_OF_TRAIT = (*ALL_ENDINGS, *BESIDE_TABLE)
ENDINGS_OF_MAP = (".log10p.nii.gz", ".clusters.nii.gz", ".map.png")


def trait_parts(names: Sequence[str], endings: Sequence[str] = ENDINGS_OF_TRAIT) -> list[str]:
    """Of each trait the TRAIT in PREFIX.TRAIT.ENDING: its name, with its position (from 1) where two files would meet.

    The trait `a.loco` meets the table by chromosome of the trait `a`.
    """
    parts = [_cut(name.replace("/", "_")) for name in names]
    return _apart(parts, [f".{k + 1}" for k in range(len(parts))], endings)


def snp_parts(names: Sequence[str], rows: Sequence[int]) -> list[str]:
    """Of each SNP the SNP in PREFIX.SNP.ENDING: its ID, with its row in the .bim (from 1) where that is not enough.

    Letters, digits, dots, dashes and underscores stay, anything else becomes an underscore. ``rows`` count from 0.
    """
    tags = [f".row{row + 1}" for row in rows]
    parts = [_cut(safe_name(name)) for name in names]
    told = [part if re.search(r"[A-Za-z0-9]", part) else part + tag for part, tag in zip(parts, tags, strict=True)]
    return _apart(told, tags, ENDINGS_OF_MAP)


def safe_name(name: str) -> str:
    """``name`` with only letters, digits, dot, dash and underscore, so that it can be part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "_"


def _cut(part: str) -> str:
    """What fits into a file's name beside prefix and ending."""
    return part.encode()[:LONGEST].decode(errors="ignore")


def _apart(parts: list[str], tags: Sequence[str], endings: Sequence[str]) -> list[str]:
    """``parts`` with their ``tags``, which differ, where two of them would make the same file."""
    while True:
        files = Counter(part + ending for part in parts for ending in endings)
        meets = [any(files[part + ending] > 1 for ending in endings) for part in parts]
        if not any(meets):
            return parts
        parts = [part + tag if one else part for part, tag, one in zip(parts, tags, meets, strict=True)]
