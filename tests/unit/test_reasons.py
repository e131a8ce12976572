"""Why a SNP has no estimate: what goes before what."""

from __future__ import annotations

import numpy as np

from mpgls.model.coding import RECESSIVE
from mpgls.model.gls import Note
from mpgls.study.filters import SnpFilter
from mpgls.study.genotypes import Decoder
from mpgls.study.reasons import Reasons


def test_filters_go_first_then_conditioning_then_what_the_genotypes_are():
    G = np.array([[0, 1, 2, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 2], [1, 1, 0, 0], [-9, -9, -9, -9]], np.float32)
    stats = Decoder(4, [np.arange(4)], np.float64, coding=RECESSIVE).stats(G.view(np.uint8))
    fitted = np.array([Note.OK, Note.MONOMORPHIC, Note.MONOMORPHIC, Note.COLLINEAR, Note.MONOMORPHIC, Note.MONOMORPHIC])
    reasons = Reasons(SnpFilter(maf=0.1), np.array([7, 13, 14]))
    notes = reasons.notes(fitted, stats, np.arange(10, 16))
    expected = [Note.OK, Note.ONE_CODE, Note.MAF, Note.CONDITIONED, Note.CONDITIONED, Note.MAF]
    assert notes.tolist() == expected and notes.dtype == np.uint8
    assert fitted[1] == Note.MONOMORPHIC
    assert Reasons(SnpFilter()).notes(fitted, stats, np.arange(6))[[2, 5]].tolist() == [1, Note.ALL_MISSING]
    notes = Reasons(SnpFilter(maf=0.3), np.array([14])).notes(fitted, stats, np.arange(10, 16))
    assert notes[[1, 4]].tolist() == [Note.MAF, Note.MAF]
