"""Checks a folder of exports from its files alone: receipt, golden files, models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from training.errors import ExportError
from training.export import coreml, golden, proof
from training.export.artefact import prove
from training.export.files import sha256, size
from training.export.int8 import measure
from training.export.layout import Layout
from training.export.onnx import interface_problems, read_model
from training.export.package import int8_check_outputs
from training.export.receipt import figure
from training.export.signature import Signature
from training.export.table import measured_text
from training.export.weights import inspect_weights
from training.graphs import Prover

#: Relative difference that a metric may have from the receipt's, since other processors round differently. It is
#: larger for int8, where a value close to the middle of two quantisation steps may be rounded to either.
SAME_FP32, SAME_INT8 = 2e-3, 2e-2

Grade = Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], dict[str, float]]


@dataclass(frozen=True)
class Line:
    """The result of checking one file."""

    run: str
    name: str
    bytes: int
    detail: str
    problems: tuple[str, ...] = ()


def check_run(
    folder: Path, run: str, entry: Mapping[str, Any], grade: Grade, provers: Mapping[str, Prover]
) -> list[Line]:
    """Check every file in the receipt's entry of a run. A file whose SHA-256 differs from the receipt's is not opened.
    `grade` and `provers` are the recipe's. Raises ExportError for a run whose files would be outside of the folder."""
    checker = _Checker(folder, run, entry, grade, provers)
    return [checker.line(name) for name in entry["files"]] + checker.unlisted()


class _Checker:
    def __init__(self, folder: Path, run: str, entry: Mapping[str, Any], grade: Grade, provers: Mapping[str, Prover]):
        self.folder, self.layout, self.grade, self.provers = folder, Layout.of(run), grade, provers
        self.entry = entry
        self.files: Mapping[str, Any] = entry["files"]
        self.graphs = entry["graphs"]
        self.digest = str(entry.get("checkpoint", {}).get("sha256", ""))
        self.synthetic = bool(entry.get("synthetic"))
        self.fp32_outputs: proof.Named | None = None
        self._checks = {
            "onnx": self._onnx,
            "int8": self._int8,
            "coreml": self._coreml,
            "weights": self._weights,
            "golden": self._golden,
            "exam": self._int8_check,
            "sample": self._sample,
            "artefact": self._artefact,
        }

    def line(self, name: str) -> Line:
        found = self.files[name]
        try:
            self._require_intact(name)
            detail, problems = self._checks[found["kind"]](name, found)
        except ExportError as error:
            detail, problems = "", [str(error)]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            detail, problems = "", [f"the receipt's entry is damaged ({type(error).__name__}: {error})"]
        path = self.folder / name
        return Line(self.layout.run, name, size(path) if path.exists() else 0, detail, tuple(problems))

    def unlisted(self) -> list[Line]:
        """Files that must exist according to the rest of the entry (formats of a graph, weights, artefacts), and that
        its `files` do not list."""
        name = self.layout
        forms = {"onnx": name.onnx, "int8": name.int8, "coreml": name.coreml}
        expected = [forms[form](graph) for graph, about in self.graphs.items() for form in about["formats"]]
        expected += [name.golden(graph) for graph in self.graphs]
        # receipts of older versions have no key `weights`; their runs always have a file of weights
        weights = self.entry.get("weights", name.weights)
        expected += [weights] if weights is not None else []
        expected += self.entry.get("artefacts", [])
        missing = [one for one in expected if one not in self.files]
        return [Line(name.run, one, 0, "", ("the receipt does not list it",)) for one in missing]

    def _require_intact(self, name: str) -> None:
        """Raise ExportError unless `name` is in the folder, is not a link, and has the digest of the receipt."""
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name or not parts.parts:
            raise ExportError("its name leads out of the folder; it was not opened")
        path = self.folder
        for part in parts.parts:
            path = path / part
            if path.is_symlink():
                raise ExportError("is a symbolic link; it was not followed")
        if not path.exists():
            raise ExportError("is missing")
        if sha256(path) != self.files[name]["sha256"]:
            raise ExportError("is not the file that was exported: its SHA-256 differs from the receipt's")

    def _needed(self, name: str) -> Path:
        """The path of another file that a check needs."""
        if name not in self.files:
            raise ExportError(f"cannot be checked: {name} is not in the receipt")
        try:
            self._require_intact(name)
        except ExportError as error:
            raise ExportError(f"cannot be checked: {name} {error}") from None
        return self.folder / name

    def _signature(self, graph: str) -> Signature:
        return Signature.from_dict(self.graphs[graph])

    def _onnx(self, name: str, found: Mapping[str, Any]) -> tuple[str, list[str]]:
        signature = self._signature(found["graph"])
        problems = self._model_problems(name, signature)
        run = proof.session(self.folder / name)
        kept = golden.read_golden(self._needed(self.layout.golden(signature.name)))
        trials = proof.compare(run, [(_sizes(signature, i), i, o) for i, o in kept.trials])
        if signature.recurrence:
            if kept.steps is None:
                problems.append("its golden file has no sequence to step through")
            else:
                inputs, wanted = kept.steps
                trials.append(
                    proof.stepped_trial(run, signature, inputs, wanted[signature.recurrence.compare], kept.start)
                )
        try:
            proof.require(name, trials, signature.tolerance)
        except ExportError as error:
            problems.append(str(error))
        sizes = "; ".join(proof.describe_sizes(t.sizes) for t in trials)
        return f"differs by {max(t.worst for t in trials):.1e} at most ({sizes})", problems

    def _int8(self, name: str, found: Mapping[str, Any]) -> tuple[str, list[str]]:
        signature = self._signature(found["graph"])
        problems = self._model_problems(name, signature)
        run = proof.session(self.folder / name)
        kept = golden.read_golden(self._needed(self.layout.golden(signature.name)))
        trials = proof.compare(run, [(_sizes(signature, i), i, o) for i, o in kept.trials])
        try:
            proof.require(name, trials, 1e30)
        except ExportError as error:
            problems.append(str(error))
        if "change" not in found:
            return f"outputs move by {max(t.worst for t in trials):.1%}; no task metric", problems
        then = found["change"]
        inputs, references, fp32 = self._int8_check_run()
        checked = self.files[self.layout.int8_check]["graph"]
        outputs = int8_check_outputs(run, signature, checked, inputs, kept.start)
        if outputs is None:
            raise ExportError(f"the int8 check has inputs for {checked}, which this graph does not take")
        change = measure(self.grade, fp32, outputs, references, float(then["limit"]))
        for kind, now, allowed in (("fp32", change.fp32, SAME_FP32), ("int8", change.int8, SAME_INT8)):
            for metric in {*now, *then[kind]}:
                a, b = now.get(metric, float("nan")), figure(then[kind].get(metric))
                if not abs(a - b) <= allowed * abs(b) + 1e-9:
                    problems.append(f"{metric} of the {kind} file is {a:.5g}; the receipt has {b:.5g}")
        return f"held-out {change}" + ("" if change.within else f", above the limit of {change.limit:.0%}"), problems

    def _int8_check_run(self) -> tuple[proof.Named, proof.Named, proof.Named]:
        """(inputs, references, outputs of the fp32 file). The outputs are cached: several int8 files share them."""
        name = self.layout.int8_check
        inputs, references = golden.read_int8_check(self._needed(name))
        if self.fp32_outputs is None:
            self.fp32_outputs = proof.session(self._needed(self.layout.onnx(self.files[name]["graph"])))(inputs)
        return inputs, references, self.fp32_outputs

    def _model_problems(self, name: str, signature: Signature) -> list[str]:
        model = read_model(self.folder / name)
        stated = {prop.key: prop.value for prop in model.metadata_props}
        problems = interface_problems(model, signature)
        if stated.get("checkpoint_sha256") != self.digest:
            problems.append("was made from another checkpoint than the receipt names")
        if stated.get("synthetic") != str(self.synthetic).lower():
            problems.append(
                f"its metadata has synthetic: {stated.get('synthetic')}; the receipt has {str(self.synthetic).lower()}"
            )
        return problems

    def _coreml(self, name: str, found: Mapping[str, Any]) -> tuple[str, list[str]]:
        if not coreml.installed():
            return f"{found['status']}; its SHA-256 matches (coremltools is not installed here)", []
        problems = coreml.description_problems(self.folder / name, self._signature(found["graph"]))
        if not coreml.can_execute():
            return f"its description matches; {coreml.NOT_EXECUTED}", problems
        trials = coreml.executed_trials(self.folder / name, self._needed(self.layout.golden(found["graph"])))
        try:
            proof.require(name, trials, float(found["tolerance"]))
        except ExportError as error:
            problems.append(str(error))
        return f"executed: differs by {max((t.worst for t in trials), default=float('inf')):.1e} at most", problems

    def _weights(self, name: str, found: Mapping[str, Any]) -> tuple[str, list[str]]:
        counts = inspect_weights(self.folder / name)
        problems = [
            f"has {now:,} {key}; the receipt has {found[key]:,}" for key, now in counts.items() if now != found[key]
        ]
        return f"{counts['values']:,} numbers in {counts['tensors']} tensors", problems

    def _golden(self, name: str, found: Mapping[str, Any]) -> tuple[str, list[str]]:
        kept = golden.read_golden(self.folder / name)
        stepped = " and a sequence" if kept.steps else ""
        listed = len(found["trials"])
        problems = [] if len(kept.trials) == listed else [f"has {len(kept.trials)} trials; the receipt has {listed}"]
        return f"{len(kept.trials)} trials{stepped}", problems

    def _int8_check(self, name: str, found: Mapping[str, Any]) -> tuple[str, list[str]]:
        inputs, references = golden.read_int8_check(self.folder / name)
        problems = [] if inputs and references else ["has no inputs or no references"]
        return f"{next(iter(inputs.values())).shape[0] if inputs else 0} held-out examples", problems

    def _artefact(self, name: str, found: Mapping[str, Any]) -> tuple[str, list[str]]:
        measured = prove(name, self.provers, found["prover"], self.folder / name, found["about"])
        values = ", ".join(f"{key} {measured_text(value)}" for key, value in measured.items())
        return f"proved by {found['prover']}" + (f": {values}" if values else ""), []

    def _sample(self, name: str, found: Mapping[str, Any]) -> tuple[str, list[str]]:
        return "as written", []


def _sizes(signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The size of every dynamic axis in a set of inputs."""
    return {
        axis: int(inputs[spec.name].shape[at])
        for spec in signature.inputs
        for at, axis in enumerate(spec.shape)
        if isinstance(axis, str)
    }
