"""Handles a console that closes while a stage runs: a closed terminal, or a pipe (`| tee`) whose reader Ctrl-C
ended."""

from __future__ import annotations

import os
import select


def discard_closed_output() -> bool:
    """Redirect stdout and stderr to /dev/null if they have no reader any more, so that writing to them does not fail.
    Returns whether one was redirected."""
    gone = False
    for number in (1, 2):
        poll = select.poll()
        poll.register(number, 0)
        if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
            gone = True
    return gone
