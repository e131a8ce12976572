"""What every test that runs a whole command needs."""

from __future__ import annotations

import pytest

from mpgls.commands import session
from mpgls.runtime import StopSignal


@pytest.fixture(scope="module", autouse=True)
def quick_commands():
    """Commands neither measure the GEMM rate nor take SIGTERM, which tells a test run to say where it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "gemm_rate", lambda *_: 1.0)
        patch.setattr(StopSignal, "__init__", lambda self: setattr(self, "requested", False))
        yield
