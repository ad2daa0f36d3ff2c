"""`python -m training.runner [--paths] -- WORDS...`: makes the plan of a command for train_cuda.sh. Exit codes as in
training/errors.py.

Uses the standard library only, so that the host's own Python can run it before there is an environment.
"""

import sys

from training.errors import AthanorError
from training.registry import domains
from training.runner.options import help_of, parse
from training.runner.plan import plan_of
from training.runner.shell import paths, script


def main(arguments: list[str]) -> int:
    """Print the plan of a command as a shell script, its help, or (`--paths`) the paths that it names."""
    at = arguments.index("--")
    looking, words = "--paths" not in arguments[:at], arguments[at + 1 :]
    try:
        command = parse(words, domains(), checking=looking and not {"--help", "-h"} & set(words))
        if command.help:
            print(f"cat << 'HELP' 2> /dev/null || true\n{help_of(command.domain, domains())}\nHELP\nexit 0")
        else:
            print(script(plan_of(command)) if looking else paths(command))
    except AthanorError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.exit_code == 2:
            word = f"{words[0]} " if words[:1] and words[0] in domains() else ""
            print(f"Try ./train_cuda.sh {word}--help", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}. Make it accessible for this user.", file=sys.stderr)
        return 6
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
