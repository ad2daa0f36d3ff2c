"""The errors of this project, one class per kind of cause, each with its exit code.

A message names the file, line or key, and what to do about it. The command line prints it without a traceback.
"""


class AthanorError(Exception):
    """An error that the user can act on. The process ends with `exit_code`."""

    exit_code = 1


class UsageError(AthanorError):
    """Wrong usage or configuration."""

    exit_code = 2


class DataError(AthanorError):
    """The data was refused; the message names the files and the reasons."""

    exit_code = 3


class ExportError(AthanorError):
    """An export is missing, or differs from its model."""

    exit_code = 4


class TrainingError(AthanorError):
    """Training failed: numbers went non-finite, memory ran out at the smallest batch, or the limit leaves no time."""

    exit_code = 5


class HostError(AthanorError):
    """The environment: no GPU although one is required, no disk space, a folder in use."""

    exit_code = 6


class Interrupted(BaseException):
    """A signal stopped the process, and everything is saved: run the same command again.

    Like KeyboardInterrupt, it derives from BaseException and not from Exception. A signal handler may raise it inside
    any code, and that code's `except Exception`, in a library or in this project, must not report it as an error of
    what was interrupted (an export that "cannot be converted", a file that "cannot be decoded").
    """

    exit_code = 75
