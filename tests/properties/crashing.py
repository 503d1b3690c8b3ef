"""A process that dies by SIGKILL before a chosen line of the code under test."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection

__all__ = ["killed_before_line"]


def killed_before_line(number: int, work: Callable[[], object], traced: Collection[str | None]) -> bool:
    """Run ``work`` in a process of its own that dies before the n-th traced line; tells whether it died."""
    child = os.fork()
    if child == 0:
        count = 0

        def trace(frame, event, argument):
            nonlocal count
            if frame.f_code.co_filename not in traced:
                return None
            if event == "line":
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        status = 1
        try:
            sys.settrace(trace)
            work()
            sys.settrace(None)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False
