"""The table of ablations: one row per run, appended to the table of its family."""

from __future__ import annotations

from benchmarks.music import learning

METRIC = {"model": {"value": 0.5, "low": 0.25, "high": 0.75}, "baselines": {"emotion_only": {"value": 1.0}}}
JUDGED = {"metrics": {"sounding_pos_loss": METRIC}, "rows": {"train": 8, "held_out": 2}, "verdict": {"word": "weak"}}


def a_row(family, note):
    return learning.row(family, JUDGED, "demo", "small", ["loss.lifeline=0.5"], note, (61.0, 7.0))


def test_rows_go_to_their_family_in_order(tmp_path):
    table = tmp_path / "results.md"
    for family, note in (("spectocloud", "a"), ("midi_generator", "b"), ("spectocloud", "c"), ("midi_generator", "d")):
        learning.append(table, family, a_row(family, note))
    blocks = table.read_text().split("\n\n")
    assert [block.splitlines()[0] for block in blocks[::2]] == ["## spectocloud", "## midi_generator"]
    notes = [[line[2] for line in block.splitlines()[2:]] for block in blocks[1::2]]
    assert notes == [["a", "c"], ["b", "d"]]
    widths = {line.count("|") for line in blocks[1].splitlines()}
    assert len(widths) == 1  # heading, rule and rows have the same number of cells


def test_a_row_has_settings_times_verdict_and_intervals_with_the_baseline():
    line = a_row("spectocloud", "with lifeline")
    for text in ("with lifeline", "demo, 8 + 2", "small: loss.lifeline=0.5", "61 s", "7 s", "weak"):
        assert f"| {text} |" in line
    assert "0.5 (0.25 to 0.75) / 1 " in line


def test_runs_with_different_settings_have_different_folders(tmp_path):
    def of(*changes):
        return learning.run_folder(tmp_path, tmp_path / "demo", "spectocloud", "small", changes)

    assert of("a=1") == of("a=1") != of("a=2")
