"""The console may go away under a stage: a terminal that was closed, a reader of a pipe (`| tee`) that Ctrl-C ended."""

from __future__ import annotations

import os
import select


def mute_what_is_gone() -> bool:
    """Where nobody reads stdout or stderr any more, send it nowhere, so that writing to it is no error; whether that
    was so."""
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
