"""From finished units to files: maxima, corrected p values, table, pictures and maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.common.inputs import Study
from mpgls.commands.vgwas_parts.config import VgwasConfig
from mpgls.engine.voxel_units import JoinedUnits, Unit, cut_units
from mpgls.engine.voxelwise import Inference
from mpgls.engine.voxelwise_plan import VoxelwisePlan
from mpgls.errors import UsageError
from mpgls.model.clusters import label_entries
from mpgls.model.extremes import Correction, fit_tail
from mpgls.model.gls import Note
from mpgls.mpi import on_root
from mpgls.report.brain_maps import draw_map, safe_name, write_maps
from mpgls.report.null_plots import null_plot
from mpgls.report.vgwas_table import write_vgwas_table
from mpgls.stream.store import fingerprint
from mpgls.stream.unit_log import (
    FinishedUnits,
    UnitLog,
    finished_units,
    rank_path,
    remove_unit_logs,
)
from mpgls.stream.vgwas_files import EntriesFile, load_maxima, open_entries, save_entries, save_maxima
from mpgls.study.images import VoxelMatrix
from mpgls.study.voxel_study import VoxelStudy

if TYPE_CHECKING:
    from mpgls.commands.common.session import Session

KEPT = (".maxima.h5", ".voxels.h5")
"""Files that a run with more permutations adds to."""
SHOWN = 10
"""Constant voxels that are named."""
TOP = 20
"""SNPs whose statistics are marked in the picture of a null distribution."""


class VgwasResults:
    """The results of a run: what earlier ones have done, and where the rest goes. Creating it is collective."""

    def __init__(self, config: VgwasConfig, study: Study, identities: list[dict[str, Any]], session: Session) -> None:
        self.config, self.study, self.session = config, study, session
        self._mark = fingerprint({"inputs": identities, "options": config.determines_results()})
        self._unit_mark = fingerprint({"mark": self._mark, "indices": [config.indices.start, config.indices.stop]})
        self.constant = np.empty(0, dtype=np.int32)
        self.earlier, self.finished = on_root(session.comm, self._look_back)

    def _look_back(self) -> tuple[dict[str, np.ndarray], FinishedUnits | None]:
        """Maxima of the permutations before this run's first, and the units that a stopped run has done."""
        config, session, earlier = self.config, self.session, {}
        if config.adds:
            path = session.path(".maxima.h5")
            if not path.exists():
                raise UsageError(f"--first-permutation adds to a finished run, but there is no {path}")
            earlier = load_maxima(path, self._mark)
            open_entries(session.path(".voxels.h5"), self._mark)
            known = min(map(len, earlier.values()))
            if session.options.resume and known == config.indices.stop:  # stopped while it wrote its report
                known = config.first_permutation
                earlier = {name: values[:known] for name, values in earlier.items()}
            if known != config.first_permutation:
                raise UsageError(f"{path} has {known - 1:,} permutations: give --first-permutation {known}")
        finished = finished_units(session.prefix, self._unit_mark) if session.options.resume else None
        if not session.options.resume:
            remove_unit_logs(session.prefix)
        elif finished is None:
            session.log.info(f"resume: there are no finished units of {session.prefix}, so the run starts anew")
        return earlier, finished

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that a stopped run has cut its units in."""
        return self.finished.sizes if self.finished is not None else {}

    def left(self, plan: VoxelwisePlan) -> list[Unit]:
        """The units that are not done."""
        units = cut_units(self.study.selected, self.config.indices, plan.block, plan.permutations)
        done = self.finished.places if self.finished is not None else {}
        left = [unit for unit in units if tuple(unit) not in done]
        if self.finished is not None:
            self.session.log.info(f"resume: {len(units) - len(left):,} of {len(units):,} units are done")
        return left

    def open_log(self, plan: VoxelwisePlan, writes: bool) -> UnitLog:
        """This rank's log of finished units, open if it ``writes``."""
        log = UnitLog(rank_path(self.session.prefix, self.session.comm.rank), self.session.options.checkpoint)
        if writes:
            log.open(self._unit_mark, {"block": plan.block, "permutations": plan.permutations})
        return log

    def finish(self, plan: VoxelwisePlan, voxels: VoxelStudy, inference: Inference) -> dict[str, Any]:
        """Join all units and write every file; returns facts for the manifest. Collective."""
        comm, session = self.session.comm, self.session
        maxima = on_root(comm, lambda: self._join(plan, voxels, inference))
        corrections = on_root(comm, lambda: self._corrections(maxima))
        store = on_root(comm, lambda: open_entries(session.path(".voxels.h5"), self._mark))
        index = comm.bcast(self.study.selection.index if self.study.selection is not None else None, root=0)
        table = session.path(".snps.tsv")
        variants = self.study.fileset.variants
        write_vgwas_table(
            comm, table, variants, store.records, store.count, corrections, index=index, coordinates=voxels.coordinates
        )
        return on_root(comm, lambda: self._report(store, index, corrections, voxels, inference))

    def _join(self, plan: VoxelwisePlan, voxels: VoxelStudy, inference: Inference) -> dict[str, np.ndarray]:
        """The maxima of all permutations so far; writes both HDF5 files."""
        config, session = self.config, self.session
        done = finished_units(session.prefix, self._unit_mark)
        assert done is not None and self.study.selection is not None
        index = self.study.selection.index
        units = cut_units(index.size, config.indices, plan.block, plan.permutations)
        joined = JoinedUnits(units, config.indices, index.size)

        def pairs() -> Iterator[dict[str, np.ndarray]]:
            for unit, entries in joined.blocks(lambda unit: done.read(tuple(unit))):
                yield {
                    "snp": index[unit.start + entries["snp"]], "voxel": entries["voxel"], "t": entries["t"],
                    "beta": entries["beta"], "log10p": inference.score.log10_p(entries["t"]),
                }  # fmt: skip

        if config.adds:
            assert not list(pairs())
        else:
            self._save_entries(pairs(), index, joined, voxels, inference)
        maxima = joined.maxima
        if config.adds:
            maxima = {name: np.concatenate([self.earlier[name], values]) for name, values in maxima.items()}
        self.constant = joined.constant
        save_maxima(session.path(".maxima.h5"), maxima, self._mark)
        return maxima

    def _save_entries(
        self,
        blocks: Iterator[dict[str, np.ndarray]],
        index: np.ndarray,
        joined: JoinedUnits,
        voxels: VoxelStudy,
        inference: Inference,
    ) -> None:
        matrix, path = voxels.matrix, self.session.path(".voxels.h5")
        attributes: dict[str, Any] = {"threshold": self.config.sparsity_threshold, "df": inference.score.df}
        if isinstance(matrix, VoxelMatrix):
            attributes |= {"shape": np.array(matrix.shape), "affine": matrix.affine}
        count = save_entries(path, index, joined.records, blocks, self._mark, attributes, voxels.coordinates)
        constant = joined.constant
        if constant.size:
            self.session.log.warn(
                f"{constant.size:,} voxels do not vary beside the confounds and are not tested: "
                f"{', '.join(voxels.name(voxel) for voxel in constant[:SHOWN].tolist())}"
                + (", ..." if constant.size > SHOWN else "")
            )
        self.session.log.info(f"{count:,} pairs of SNP and voxel with p <= {self.config.sparsity_threshold:g}: {path}")

    def _corrections(self, maxima: dict[str, np.ndarray]) -> dict[str, Correction]:
        """How each statistic is corrected: by its maxima under permutation, and their tail if asked for."""
        made = {}
        for name, values in maxima.items():
            null = values[1:]
            tail = fit_tail(null) if self.config.tail == "gpd" and null.size else None
            made[name] = Correction(null, tail)
            text = f"{name}: largest {values[0]:.6g}"
            if null.size:
                text += f", corrected p {made[name].p(values[:1])[0]:.4g} ({null.size:,} permutations)"
            if tail is not None:
                verdict = "" if tail.good else ", not used"
                fitted = f"shape {tail.shape:.3f}, fit p {tail.p_fit:.3g}{verdict}"
                text += f"; Pareto tail: {fitted if tail.exceedances else 'too few maxima to fit one'}"
            self.session.log.info(text)
        return made

    # -- what a person looks at ---------------------------------------------------------------------------------------

    def _report(
        self,
        store: EntriesFile,
        index: np.ndarray,
        corrections: dict[str, Correction],
        voxels: VoxelStudy,
        inference: Inference,
    ) -> dict[str, Any]:
        """Pictures and maps; facts for the manifest. On rank 0."""
        config, session = self.config, self.session
        records = store.records(0, store.count)
        tested = records["note"] == Note.OK
        files = [str(session.path(suffix)) for suffix in (".snps.tsv", *KEPT)]
        session.log.info(f"{np.count_nonzero(tested):,} of {store.count:,} SNPs tested: {files[0]}")
        if config.plots:
            for name, correction in corrections.items():
                path = session.path(f".null.{name}.png")
                best = np.argsort(-np.where(tested, records[name], -np.inf), kind="stable")[:TOP]
                null_plot(path, name, correction.maxima, records[name][best], self._names(index[best]), correction.tail)
                files.append(str(path))
        best = most_significant(records, corrections, config.maps)
        for name, position in zip(self._names(index[best]), best.tolist(), strict=True):
            files += self._map(store, name, int(index[position]), voxels, inference)
        significant = {
            name: int(np.count_nonzero(correction.p(records[name][tested]) <= 0.05))
            for name, correction in corrections.items()
        }
        return {
            "snps": int(store.count),
            "tested": int(tested.sum()),
            "constant_voxels": self.constant.size,
            "significant_0.05": significant,
            "tails": {name: asdict(correction.tail) for name, correction in corrections.items() if correction.tail},
            "files": files,
        }

    def _map(self, store: EntriesFile, name: str, bim_row: int, voxels: VoxelStudy, inference: Inference) -> list[str]:
        matrix = voxels.matrix
        assert isinstance(matrix, VoxelMatrix) and inference.neighbours is not None
        pairs = store.pairs(bim_row)
        labels = label_entries(np.zeros(pairs["snp"].size, dtype=np.int64), pairs["voxel"], inference.neighbours)
        place = (matrix.shape, matrix.affine, matrix.coordinates, pairs["voxel"], pairs["log10p"])
        made = write_maps(self.session.prefix, name, *place, labels)
        picture = Path(f"{self.session.prefix}.{safe_name(name)}.map.png")
        draw_map(picture, name, *place)
        self.session.log.info(f"map of {name}: {', '.join(map(str, made))}, {picture}")
        return [*map(str, made), str(picture)]

    def _names(self, bim_rows: np.ndarray) -> list[str]:
        variants = self.study.fileset.variants
        return [variants.read(row, row + 1).id[0] for row in bim_rows.tolist()]


def most_significant(records: np.ndarray, corrections: dict[str, Correction], count: int) -> np.ndarray:
    """The ``count`` SNPs with the smallest corrected p of any statistic, then the largest -log10 p."""
    candidates = np.flatnonzero((records["note"] == Note.OK) & (records["peak_voxel"] >= 0))
    smallest = np.ones(candidates.size)
    for name, correction in corrections.items():
        if correction.maxima.size:
            smallest = np.minimum(smallest, correction.p(records[name][candidates]))
    return candidates[np.lexsort((-records["log10p"][candidates], smallest))[:count]]
