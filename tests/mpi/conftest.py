"""What every test that runs a whole command needs."""

from __future__ import annotations

import signal

import pytest

from mpgls.commands import session


@pytest.fixture(scope="module", autouse=True)
def quick_commands():
    """Commands do not measure the GEMM rate, and leave the signal handlers as they were."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "gemm_rate", lambda *_: 1.0)
        yield
    for number, handler in handlers.items():
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)
