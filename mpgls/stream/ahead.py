"""Blocks of SNPs that a library decodes: a thread reads block k+1 while block k is worked on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np

from mpgls.study.genotype_files import DecodedFile, GenotypeFiles, RowReader


class AheadReader:
    """Streams ``blocks`` of SNP numbers, ascending, of ``files`` through two buffers.

    Every rank opens for itself the files that it needs. Iterating yields (k, rows) with rows uint8 (SNPs, snp_bytes),
    valid until the next step. Raises StorageError or InputError, naming the file, where one cannot be read.
    """

    def __init__(self, files: GenotypeFiles, blocks: Sequence[np.ndarray]) -> None:
        self.files, self.blocks = files, blocks
        touched = {k for block in blocks if block.size for k, _ in files.split(block)}
        self._readers: dict[int, RowReader] = {k: cast(DecodedFile, files.files[k]).reader() for k in sorted(touched)}
        largest = max(map(len, blocks), default=0)
        self._buffers = [np.empty((largest, files.snp_bytes), dtype=np.uint8) for _ in range(2)]

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        try:
            with ThreadPoolExecutor(1, "read ahead") as thread:
                ahead = thread.submit(self._read, 0)
                for k in range(len(self.blocks)):
                    rows = ahead.result()
                    ahead = thread.submit(self._read, k + 1)
                    yield k, rows
        finally:
            self.close()

    def _read(self, k: int) -> np.ndarray:
        """Block k; nothing after the last."""
        block = self.blocks[k] if k < len(self.blocks) else np.empty(0, dtype=np.int64)
        rows = self._buffers[k % 2][: block.size]
        for file, part in self.files.split(block):
            self._readers[file].read(block[part] - self.files.edges[file], rows[part])
        return rows

    def close(self) -> None:
        """Close the files."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
