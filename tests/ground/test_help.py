"""What a command costs before it does anything."""

import subprocess
import sys

from training.workspace import PROJECT


def test_the_command_line_is_there_without_numpy_or_torch():
    """Half a second would go by at every `--help`."""
    code = "import sys, training.cli; print(sorted({'torch', 'numpy', 'scipy', 'mido'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
