"""On how many ranks a test runs."""

from __future__ import annotations

import pytest

from mpgls.run.launcher import launched_size

FEW = 2
"""One rank, and the fewest that are several."""

few_ranks = pytest.mark.skipif(launched_size() > FEW, reason=f"its subject is the same on {FEW} ranks and on more")
"""For tests of what files mean, of statistics and of messages: what more ranks change is shown by other tests."""

two_ranks = pytest.mark.skipif(
    launched_size() != FEW, reason=f"it compares programs, and takes long: on {FEW} ranks only"
)
"""For what other programs found in real data: tests of small studies run the same code on other numbers of ranks."""
