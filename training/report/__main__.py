"""`python -m training.report DIR`: writes the page of the job in DIR, at a low priority so that a training on the same
host is not slowed down."""

import os
import sys
from pathlib import Path

from training.report.page import write_report
from training.workspace import Workspace

os.nice(10)
write_report(Workspace(Path(sys.argv[1])))
