"""Makes all files of one run, in a temporary folder, and compares them with the model before they are published."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import ExportError
from training.export import coreml, golden, proof
from training.export.artefact import plain_values, prove, write_artefact
from training.export.files import files_below, sha256, size
from training.export.int8 import LIMIT, Change, measure, write_int8
from training.export.layout import Layout, collisions, safe_part
from training.export.onnx import write_onnx
from training.export.ready import is_ready, opset, write_ready
from training.export.signature import Signature
from training.export.table import file_summary
from training.export.trace import trace
from training.export.weights import plain_names, write_weights
from training.graphs import Artefact, Graph, Int8Check
from training.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import torch

    from training.data.rows import Row

#: Golden files are part of every export, so their total size should be small; above this an export prints a warning.
GOLDEN_TOTAL = 20_000_000


@dataclass
class Package:
    """The files of one run while they are made, and what was measured on them."""

    folder: Path  # a temporary folder in which files have the same names as below exports/
    recipe: Recipe
    metadata: Mapping[str, str]  # written into every file
    int8_limit: float = LIMIT
    say: Callable[[str], None] = print
    graphs: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layout = Layout.of(self.recipe.run)

    def make(self, model: Any, held_out: Sequence[Row] | None) -> None:
        """Export everything that the recipe defines. Raises ExportError for the first file that differs from the model.

        Without held-out rows, no samples and no int8 files are exported: the quality of int8 could not be measured.
        """
        self._weights(model)
        graphs = self.recipe.graphs(model)
        programs = {}
        for graph in graphs:
            self._check_graph(graph, graphs)
            began = time.monotonic()
            if not is_ready(graph):
                programs[graph.name] = trace(graph)
            self._onnx(graph, graphs, programs.get(graph.name), began)
        self._int8_files(graphs, self.recipe.int8_check(held_out) if held_out else None, bool(held_out))
        for graph in graphs:
            if "coreml" in graph.formats:
                self._coreml(graph, programs[graph.name])
        for artefact in self.recipe.artefacts(model):
            self._artefact(artefact)
        self._samples(model, held_out)
        kept = sum(entry["bytes"] for entry in self.files.values() if entry["kind"] in ("golden", "exam"))
        if kept > GOLDEN_TOTAL:
            self.note(f"The golden files take {kept / 1e6:.0f} MB, more than the {GOLDEN_TOTAL / 1e6:.0f} MB intended.")

    @property
    def expected_files(self) -> dict[str, Any]:
        """Entries of the receipt by which `verify` notices that `files` lost the weights or an artefact. (For graphs,
        their formats serve the same purpose.)"""
        kinds = {name: about["kind"] for name, about in self.files.items()}
        return {
            "weights": next((name for name, kind in kinds.items() if kind == "weights"), None),
            "artefacts": [name for name, kind in kinds.items() if kind == "artefact"],
        }

    def _check_graph(self, graph: Graph, graphs: Sequence[Graph]) -> None:
        if not safe_part(graph.name) or [other.name for other in graphs].count(graph.name) > 1:
            raise ExportError(
                f"`{graph.name}` cannot be a graph's name: it must be usable as a file name, and be used once."
            )
        if "onnx" not in graph.formats:
            raise ExportError(f"{graph.name}: its formats must include onnx; they are {graph.formats}.")

    def _samples(self, model: Any, held_out: Sequence[Row] | None) -> None:
        if not held_out:
            self.note(f"No samples of {self.recipe.title}: this host has no held-out data.")
            return
        began = time.monotonic()
        name = self.layout.samples
        folder = self.folder / name
        folder.mkdir(parents=True)
        self.recipe.samples(model, held_out, folder, self.recipe.settings.seed)
        for below in files_below(folder):
            self._list(f"{name}/{below}", {"kind": "sample"})
        self.say(f"  {name}/: {len(files_below(folder))} files, {time.monotonic() - began:.1f} s")

    def note(self, text: str) -> None:
        """Print a note, and add it to the receipt."""
        self.notes.append(text)
        self.say(f"  NOTE: {text}")

    def _list(self, name: str, entry: dict[str, Any]) -> None:
        path = self.folder / name
        self.files[name] = {**entry, "sha256": sha256(path), "bytes": size(path)}

    def _weights(self, model: Any) -> None:
        state = self.recipe.weights(model)
        if state is None:
            return
        name = self.layout.weights
        counts = write_weights(plain_names(state), self.folder / name, self.metadata)
        self._list(name, {"kind": "weights", **counts})
        self.say(f"  {name}: {counts['values']:,} numbers in {counts['tensors']} tensors")

    def _onnx(
        self, graph: Graph, graphs: Sequence[Graph], program: torch.export.ExportedProgram | None, began: float
    ) -> None:
        """Write the file, compare it with the model at every trial and along a sequence, and write its golden file."""
        name, signature = self.layout.onnx(graph.name), Signature.of(graph)
        path = self.folder / name
        if program is None:
            write_ready(graph, path, self.metadata)
        else:
            write_onnx(graph, program, path, self.metadata)
        run, truth = proof.session(path), proof.truth(graph)
        cases = [(sizes, inputs, truth(inputs)) for sizes, inputs in proof.trial_inputs(graph)]
        trials = proof.compare(run, cases)
        proof.require(name, trials, graph.tolerance)
        entry: dict[str, Any] = {
            "kind": "onnx",
            "graph": graph.name,
            "opset": opset(path),
            "parity": {"tolerance": graph.tolerance, "trials": [t.to_dict() for t in trials]},
        }
        steps, start = None, {}
        if graph.recurrence:
            steps, start, stepped = self._stepped(graph, graphs, run, name)
            entry["parity"]["stepped"] = stepped.to_dict()
            trials = [*trials, stepped]
        kept_in = self.layout.golden(graph.name)
        kept = golden.write_golden(self.folder / kept_in, [(i, o) for _, i, o in cases], steps, start)
        self._list(kept_in, {"kind": "golden", "graph": graph.name, "trials": [cases[at][0] for at in kept]})
        self.graphs[graph.name] = {**signature.to_dict(), "formats": ["onnx"]}
        worst = max(trial.worst for trial in trials)
        entry["seconds"] = round(time.monotonic() - began, 1)
        self._list(name, entry)
        self.say(f"  {name}: differs by {worst:.1e} at most (allowed {graph.tolerance:g}), {entry['seconds']} s")

    def _stepped(
        self, graph: Graph, graphs: Sequence[Graph], run: proof.Run, name: str
    ) -> tuple[tuple[proof.Named, proof.Named], Mapping[str, Any], proof.Trial]:
        """Compare a one-step graph with the full one; returns (inputs and expected outputs, start states, trial)."""
        recurrence = graph.recurrence
        assert recurrence is not None
        full = next((g for g in graphs if g.name == recurrence.full), None)
        if full is None:
            raise ExportError(f"{graph.name} must agree with `{recurrence.full}`, which is not exported.")
        inputs = proof.sequence_inputs(graph, full)
        wanted = proof.truth(full)(inputs)[recurrence.compare]
        stepped = proof.stepped_trial(run, Signature.of(graph), inputs, wanted, recurrence.start)
        proof.require(f"{name}, stepped,", [stepped], graph.tolerance)
        return (inputs, {recurrence.compare: wanted}), recurrence.start, stepped

    def _artefact(self, artefact: Artefact) -> None:
        """Write an artefact, and run its prover on the written files."""
        began = time.monotonic()
        name = self.layout.artefact(artefact.name)
        if collisions([name], self.files):
            raise ExportError(f"{self.recipe.title} exports two files of the same name: {name}. Rename the artefact.")
        about = plain_values(f"`about` of {artefact.name}", artefact.about)
        write_artefact(artefact, self.folder / name)
        measured = prove(name, self.recipe.provers, artefact.prover, self.folder / name, about)
        entry: dict[str, Any] = {
            "kind": "artefact",
            "prover": artefact.prover,
            "about": about,
            "measured": measured,
            "seconds": round(time.monotonic() - began, 1),
        }
        self._list(name, entry)
        self.say(f"  {name}: {file_summary(self.files[name])}, {entry['seconds']} s")

    def _int8_files(self, graphs: Sequence[Graph], check: Int8Check | None, had_data: bool) -> None:
        wanted = [graph for graph in graphs if "int8" in graph.formats]
        if not wanted:
            return
        if check is None:
            reason = "its recipe has no int8_check" if had_data else "this host has no held-out data to measure them on"
            self.note(f"No int8 files of {self.recipe.title}: {reason}.")
            return
        if check.graph not in [graph.name for graph in graphs]:
            raise ExportError(f"The int8 check of {self.recipe.title} names `{check.graph}`, which is not exported.")
        name = self.layout.int8_check
        golden.write_int8_check(self.folder / name, check.inputs, check.references)
        self._list(name, {"kind": "exam", "graph": check.graph})
        fp32 = proof.session(self.folder / self.layout.onnx(check.graph))(check.inputs)
        for graph in wanted:
            self._int8(graph, check, fp32)

    def _int8(self, graph: Graph, check: Int8Check, fp32: proof.Named) -> None:
        began = time.monotonic()
        source, name = self.layout.onnx(graph.name), self.layout.int8(graph.name)
        write_int8(self.folder / source, self.folder / name)
        run = proof.session(self.folder / name)
        kept = golden.read_golden(self.folder / self.layout.golden(graph.name))
        trials = proof.compare(run, [({}, inputs, outputs) for inputs, outputs in kept.trials])
        proof.require(name, trials, 1e30)  # only that outputs are finite; the task's metric judges their quality
        entry: dict[str, Any] = {
            "kind": "int8",
            "graph": graph.name,
            "largest_error": max(trial.worst for trial in trials),
        }
        outputs = int8_check_outputs(run, Signature.of(graph), check.graph, check.inputs, kept.start)
        if outputs is None:
            self.note(
                f"{name}: the int8 check has inputs for {check.graph} only; no task metric of this file is measured."
            )
        else:
            change = measure(self.recipe.grade, fp32, outputs, check.references, self.int8_limit)
            entry["change"] = change.to_dict()
            self._judge(name, change)
        entry["seconds"] = round(time.monotonic() - began, 1)
        self.graphs[graph.name]["formats"].append("int8")
        self._list(name, entry)
        cost = f"held-out {change}" if outputs is not None else f"outputs move by {entry['largest_error']:.1%}"
        self.say(f"  {name}: {cost}, {entry['seconds']} s")

    def _judge(self, name: str, change: Change) -> None:
        if not all(abs(v) < float("inf") for v in change.int8.values()):
            raise ExportError(f"{name} has task metrics that are not finite: {change}.")
        if not change.within:
            self.note(
                f"{name} is worse than the fp32 file by more than {change.limit:.0%}: {change}. Use the fp32 file."
            )

    def _coreml(self, graph: Graph, program: torch.export.ExportedProgram) -> None:
        name = self.layout.coreml(graph.name)
        if not coreml.installed():
            self.note(f"{name} was not made: coremltools is not installed.")
            return
        began = time.monotonic()
        coreml.write_coreml(graph, program, self.folder / name, self.metadata)
        problems = coreml.description_problems(self.folder / name, Signature.of(graph))
        if problems:
            raise ExportError(f"{name} is not the requested graph:\n  " + "\n  ".join(problems))
        entry: dict[str, Any] = {
            "kind": "coreml",
            "graph": graph.name,
            "status": coreml.NOT_EXECUTED,
            "tolerance": coreml.TOLERANCE,
            "target": coreml.TARGET,
            "precision": coreml.PRECISION,
            "axes": {axis: list(ends) for axis, ends in coreml.coreml_axes(graph.axes).items()},
        }
        if coreml.can_execute():
            trials = coreml.executed_trials(self.folder / name, self.folder / self.layout.golden(graph.name))
            proof.require(name, trials, coreml.TOLERANCE)
            entry |= {"status": coreml.EXECUTED, "parity": [t.to_dict() for t in trials]}
        entry["seconds"] = round(time.monotonic() - began, 1)
        self.graphs[graph.name]["formats"].append("coreml")
        self._list(name, entry)
        self.say(f"  {name}: {entry['status']}; {coreml.PRECISION}, {coreml.TARGET}, {entry['seconds']} s")


def int8_check_outputs(
    run: proof.Run,
    signature: Signature,
    checked: str,
    inputs: Mapping[str, np.ndarray],
    start: Mapping[str, np.ndarray],
) -> proof.Named | None:
    """The outputs of a graph for the inputs of an int8 check of the graph `checked`: directly if it is that graph, step
    by step from `start` if it is the one-step graph of it; None if it is neither."""
    if signature.name == checked:
        return run(inputs)
    if signature.recurrence and signature.recurrence.full == checked:
        return {signature.recurrence.compare: proof.step_through(run, signature, inputs, start)}
    return None
