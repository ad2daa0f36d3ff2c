"""A scratch folder: empty at the beginning, gone at the end, for one process."""

import pytest

from training.errors import HostError
from training.stages.scratch import scratch
from training.workspace import Workspace


def test_a_scratch_folder_is_empty_and_removed(tmp_path):
    (tmp_path / ".trial" / "left by a kill").mkdir(parents=True)
    with scratch(Workspace(tmp_path), ".trial", "testing") as folder:
        assert folder == tmp_path / ".trial" and [path.name for path in folder.iterdir()] == [".lock"]
        with (
            pytest.raises(HostError, match=r"in use by process \d+ \(testing\)"),
            scratch(Workspace(tmp_path), ".trial", "again"),
        ):
            pass
    assert not folder.exists()
