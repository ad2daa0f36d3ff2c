"""The cost of starting a command."""

import subprocess
import sys

from training.workspace import PROJECT


def test_the_command_line_does_not_import_numpy_or_torch():
    """They would delay every `--help` by half a second."""
    code = "import sys, training.cli; print(sorted({'torch', 'numpy', 'scipy', 'mido'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
