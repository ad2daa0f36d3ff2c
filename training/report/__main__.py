"""`python -m training.report DIR`: the page of the job in DIR, written out of the way of whatever else runs here."""

import os
import sys
from pathlib import Path

from training.report.page import write_report
from training.workspace import Workspace

os.nice(10)
write_report(Workspace(Path(sys.argv[1])))
