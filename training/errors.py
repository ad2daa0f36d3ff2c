"""What can go wrong, distinguished by who has to act; each kind has its exit code.

A message names the file, line or key, and what to do about it. The command line prints it without a traceback.
"""


class AthanorError(Exception):
    """An error that its reader can act on. `exit_code` is what the process ends with."""

    exit_code = 1


class UsageError(AthanorError):
    """Wrong usage or configuration."""

    exit_code = 2


class DataError(AthanorError):
    """The data was refused; the message says which files, and why."""

    exit_code = 3


class ExportError(AthanorError):
    """An export is missing, or differs from its model."""

    exit_code = 4


class TrainingError(AthanorError):
    """Training failed: numbers went non-finite, or memory ran out at the smallest batch."""

    exit_code = 5


class HostError(AthanorError):
    """The environment: no GPU where one was demanded, no disk, a folder in use."""

    exit_code = 6


class Interrupted(BaseException):
    """Stopped from outside with everything saved: run the same command again.

    No Exception, as KeyboardInterrupt is none: raised anywhere by a signal, it must not be taken for a fault of what it
    interrupted, by a library or by ours (an export that "cannot be converted", a file that "cannot be decoded").
    """

    exit_code = 75
