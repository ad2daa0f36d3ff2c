"""The notebooks: generated from their sources, and run from the first cell to the last on a stand-in for Colab."""

from __future__ import annotations

import ast
import importlib.util
import json
import re

import nbformat
import pytest

from .conftest import PROJECT
from .running import papermill, parameters

NOTEBOOKS = sorted(path.relative_to(PROJECT / "notebooks").as_posix() for path in PROJECT.glob("notebooks/**/*.ipynb"))


NODES = ("predict-curve", "predict-boost", "blend")  # of the toy domain, which take time and show nothing more here


def generator():
    spec = importlib.util.spec_from_file_location("make_notebooks", PROJECT / "scripts/make_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebooks_are_as_generated(capsys):
    assert generator().main(["--check"]) == 0, capsys.readouterr().err


def test_the_check_finds_a_notebook_that_was_edited_by_hand_or_has_no_source(tmp_path, monkeypatch, capsys):
    module = generator()
    monkeypatch.setattr(module, "NOTEBOOKS", tmp_path)
    assert module.main([]) == 0 and module.main(["--check"]) == 0
    edited = tmp_path / "train_colab.ipynb"
    edited.write_text(edited.read_text().replace("nvidia-smi", "nvidia-smi -L"))
    (tmp_path / "other.ipynb").write_text("{}")
    assert module.main(["--check"]) == 1
    assert "train_colab.ipynb, other.ipynb" in capsys.readouterr().err


def test_a_cell_without_an_explanation_and_a_placeholder_without_a_value_are_refused(tmp_path, monkeypatch):
    module = generator()
    monkeypatch.setattr(module, "SOURCES", tmp_path)
    (tmp_path / "a.py").write_text("# %% [markdown]\n# # A\n\n# %%\nx = 1\n\n# %%\ny = 1\n")
    with pytest.raises(module.SourceError, match=r"cell 3 of a.ipynb has no explanation"):
        module.generated("a.ipynb", "a.py", {})
    (tmp_path / "a.py").write_text("# %% [markdown]\n# # __NAME__\n")
    with pytest.raises(module.SourceError, match="no value for NAME"):
        module.generated("a.ipynb", "a.py", {})


@pytest.mark.parametrize("source", sorted((PROJECT / "notebooks/src").glob("*.py")), ids=lambda path: path.stem)
def test_sources_are_python_so_that_linters_and_editors_read_them(source):
    assert ast.parse(source.read_text()).body


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_no_outputs_a_gpu_and_valid_cells(name):
    text = (PROJECT / "notebooks" / name).read_text()
    notebook = nbformat.reads(text, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.accelerator == "GPU"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert [cell.metadata.get("tags") for cell in code].count(["parameters"]) == 1
    for cell in code:
        compile("\n".join(re.sub(r"^( *)[!%].*", r"\1pass", line) for line in cell.source.splitlines()), name, "exec")


def test_a_notebook_runs_from_the_first_cell_to_files_that_are_safe_on_the_drive(drive):
    """With the toy domain; soak/notebooks.py runs all of them. The kernel's Python has neither ensurepip nor pip, as
    Colab's; that an environment is made from such a Python is a test of tests/runner/test_setup_installs.py."""
    bare = drive.folder / "bare"
    for name in ("ensurepip", "pip"):
        (bare / name).mkdir(parents=True)
        (bare / name / "__init__.py").write_text("raise ImportError('taken out by the distribution')\n")
    options = ["--only", "boost"] + [word for name in NODES for word in ("--skip", name)]
    chosen = parameters(drive, DOMAIN="toy", ENDS="open", UNASSIGN=True, OPTIONS=options)
    code, text, errors = papermill(
        drive, "train_amp_colab.ipynb", chosen,
        ATHANOR_DOMAINS="tests.toy_domain.domain:TOY", PYTHONPATH=f"{bare}:{path()}",
    )  # fmt: skip
    assert code == 0, text + errors
    for expected in ("Ready.", "The job is done.", "safe: everything in", "receipt.json"):
        assert expected in text, text
    uploaded = drive.cloud / "MyDrive/athanor"
    assert json.loads((uploaded / "exports/receipt.json").read_text())
    assert (uploaded / "checkpoints/boost/index.json").is_file() and (drive.control / "unassigned").exists()


def path() -> str:
    from .conftest import STANDIN

    return f"{STANDIN}:{PROJECT}"


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name.startswith("train_")])
def test_the_data_options_of_a_notebook_are_those_of_its_domain(name, tmp_path):
    """With a folder that has what the notebook asks for."""
    from training.registry import domains
    from training.runner.options import parse

    for file in ("train.jsonl", "val.jsonl", "test.jsonl", "movie.mp4", "audio/a", "midi/a", "bids/a"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    cells = [cell.source for cell in nbformat.read(PROJECT / "notebooks" / name, 4).cells if cell.cell_type == "code"]
    (line,) = [line for cell in cells for line in cell.splitlines() if line.startswith("DATA_OPTIONS = ")]
    (word,) = [line for cell in cells for line in cell.splitlines() if line.startswith("DOMAIN = ")]
    words = eval(line.partition(" = ")[2], {"data": tmp_path})
    command = parse([json.loads(word.partition(" = ")[2]), *map(str, words)], domains())
    assert command.domain.given(command.options), "data was named, so this is no demo"
