"""What tests of a real card share."""

from __future__ import annotations

import pytest

from mpgls.device import cuda
from mpgls.errors import UsageError


@pytest.fixture(scope="module")
def card():
    """The first GPU of this machine; a test that needs it is skipped where there is none."""
    try:
        return cuda.open_card(0, 1, None)
    except UsageError as error:
        pytest.skip(str(error))
