"""The hosts in Swift cannot be built here: what is tested is that their sources name what the exported files have."""

from __future__ import annotations

import json
import re

import onnx
import pytest

from training.domains.music.midi.rules import grammar_rules
from training.export.receipt import read_receipt
from training.workspace import PROJECT

SOURCES = PROJECT / "hosts" / "swift"
TEXT = {path.name + path.parent.name: path.read_text() for path in sorted((SOURCES / "Sources").rglob("*.swift"))}


def names(constant: str) -> list[str]:
    found = re.search(rf"static let {constant} = \[(.*?)\]", TEXT["Model.swiftAthanor"])
    return re.findall(r'"(\w+)"', found[1])


@pytest.mark.parametrize(("graph", "family", "prefix"), [
    ("midi_generator", "midi_generator", "generator"), ("spectocloud", "spectocloud", "cloud"),
])  # fmt: skip
def test_inputs_and_outputs_are_those_of_the_exported_graphs(exports, graph, family, prefix):
    about = read_receipt(exports)["families"][family]["graphs"][graph]
    assert names(f"{prefix}Inputs") == [one["name"] for one in about["inputs"]]
    assert names(f"{prefix}Outputs") == [one["name"] for one in about["outputs"]]


def test_the_sizes_that_draw_cloud_gives_are_those_of_the_graph(exports):
    about = read_receipt(exports)["families"]["spectocloud"]["graphs"]["spectocloud"]
    shapes = {one["name"]: one["shape"][1:] for one in about["inputs"]}
    program = TEXT["main.swiftdraw-cloud"]
    assert f"[1, {shapes['spectrogram'][0]}, {shapes['spectrogram'][1]}]" in program
    assert f"[1, {shapes['emotion'][0]}]" in program and f"[1, {shapes['midi_features'][0]}]" in program
    assert [one["shape"][2] for one in about["outputs"]] == [3, 4, 3] and "[3, 4, 3]" in program


def test_every_table_that_is_read_is_in_the_metadata(exports):
    model = onnx.load(exports / "midi_generator.onnx", load_external_data=False)
    there = {entry.key for entry in model.metadata_props}
    read = set(re.findall(r'(?:table\(|metadata\[)"(\w+)"', "".join(TEXT.values())))
    assert len(read) >= 6 and read <= there


def test_the_package_says_that_it_was_not_built():
    assert "Not built" in (SOURCES / "Package.swift").read_text().splitlines()[1]
    assert "Not built and not run" in (SOURCES / "README.md").read_text().split("\n\n")[1]


def test_every_rule_of_the_grammar_is_known_to_the_sources():
    rules = json.loads(json.dumps(grammar_rules(unisons=False, empty_bars=2)))
    used = {effect[0] for effects in rules["entering"].values() for effect in effects}
    used |= {condition[0] for _, _, condition in rules["forbidden"]}
    grammar = TEXT["Grammar.swiftAthanor"]
    assert [name for name in sorted(used) if f'case "{name}"' not in grammar] == []
