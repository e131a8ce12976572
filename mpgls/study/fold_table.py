"""Folds that the user gives in a table, and what every fold must be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpgls.errors import InputError
from mpgls.model.folds import NestedFolds, folds_of_labels
from mpgls.study.design import Design
from mpgls.study.tables import SampleId, read_table, show_sample


def read_folds(path: str, ids: list[SampleId]) -> NestedFolds:
    """Folds from a table FID IID OUTER INNER_1 ... with one column of inner folds for each outer one, in their order.

    The inner label of a sample in its own outer fold's test set is not looked at. Raises InputError.
    """
    table = read_table(path, known=ids)
    position = {name: k for k, name in enumerate(table.ids)}
    missing = [name for name in ids if name not in position]
    if missing:
        raise InputError(f"{path} has no fold for sample {show_sample(missing[0])} and {len(missing) - 1} others")
    values = table.values[[position[name] for name in ids]]
    outer, inner = values[:, 0], values[:, 1:]
    labels = np.unique(outer)
    if np.isnan(outer).any() or labels.size < 2 or inner.shape[1] != labels.size:
        raise InputError(
            f"{path}: expected FID IID OUTER and one column of inner folds for each of the {labels.size} outer folds "
            f"(at least 2) among the analysed samples, found {inner.shape[1]}"
        )
    counts = set()
    for o, label in enumerate(labels):
        column = inner[outer != label, o]
        if np.isnan(column).any():
            raise InputError(
                f"{path}, column {table.names[o + 1]!r}: a sample outside outer fold {label:g} has no fold"
            )
        counts.add(np.unique(column).size)
    if len(counts) > 1 or counts.pop() < 2:
        raise InputError(f"{path}: every outer fold needs the same number of inner folds, at least 2")
    return folds_of_labels(outer, inner)


def check_folds(folds: NestedFolds, C: np.ndarray, names: Sequence[str]) -> None:
    """InputError, naming the fold, if one has no R2 or the covariates are collinear or constant over a training set."""
    outer, inner = len(folds.outer), folds.inner_count
    for k in range(len(folds.tests)):
        training = folds.training(k)
        where = f"outer fold {k + 1}" if k < outer else f"inner fold {(k - outer) % inner + 1} of outer fold "
        where += "" if k < outer else str((k - outer) // inner + 1)
        if folds.tests[k].size < 2:
            raise InputError(f"{where} has a single sample, and R2 needs two: ask for fewer folds")
        if training.size <= len(names) + 1:
            raise InputError(f"{where} leaves {training.size} samples to train {len(names) + 1} covariates on")
        try:
            Design.of(C[training], names)
        except InputError as error:
            raise InputError(f"{where}, training samples: {error}") from None
