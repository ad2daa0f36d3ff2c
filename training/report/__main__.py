"""`python -m training.report DIR`: writes the page of the job in DIR, at a low priority so that a training on the same
host is not slowed down."""

import os
import sys
from pathlib import Path

from training.report.page import write_report
from training.workspace import Workspace

if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
    sys.exit(
        "usage: python -m training.report DIR, the folder of a job. (python -m training report --out DIR does more.)"
    )
os.nice(10)
write_report(Workspace(Path(sys.argv[1])))
