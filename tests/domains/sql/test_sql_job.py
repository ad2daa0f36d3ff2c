"""A complete job on a few demo questions, with the base that knows nothing, run once; each test looks at its result."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from training import cli
from training.domains.sql.bases import demo
from training.domains.sql.bases.folder import base_at
from training.domains.sql.bases.origin import licence_of
from training.domains.sql.text_to_sql.exports import adapter
from training.domains.sql.text_to_sql.generate import Answer
from training.domains.sql.text_to_sql.judging import Judge, findings, metrics_of
from training.domains.sql.text_to_sql.predictors import BASE, NEIGHBOUR, TUNED
from training.engine.checkpoints.checkpoint_file import read
from training.errors import ExportError
from training.judgement import verdict
from training.registry import domains, load_recipe
from training.runner.options import parse
from training.runner.plan import plan_of
from training.stages.splits import load_split
from training.workspace import Workspace


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    place = tmp_path_factory.mktemp("sql") / "out"
    assert cli.main(["prepare", "--domain", "sql", "--questions", "60", "--out", str(place)]) == 0
    words = plan_of(parse(["sql", "--cpu", "--preset", "debug", "--out", str(place)], domains())).steps
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        for step in words:
            if step.name.startswith(("train", "evaluate", "export", "verify")):
                assert cli.main(list(step.command[2:])) == 0, step.name
    return place


def of(out, name: str):
    return json.loads((out / name).read_text(encoding="utf-8"))


def test_a_job_ends_in_verified_exports_that_say_synthetic(out):
    entry = of(out, "exports/receipt.json")["families"]["text_to_sql"]
    assert entry["synthetic"] is True
    assert (entry["base"]["licence"], entry["base"]["revision"]) == ("not stated", "")  # made here
    assert {"adapter", "merged"} <= {name for name, about in entry["files"].items() if about["kind"] == "artefact"}


def test_a_checkpoint_holds_the_adapter_alone_and_identifies_its_base(out):
    content = read(out / "checkpoints/text_to_sql/best.pt")
    assert all(".lora_" in name for name in content["model"]) and content["frozen"]["tensors"] > 20
    assert content["settings"]["model"]["base"].startswith(str(out))


def test_the_evaluation_names_every_baseline_and_does_not_call_it_learnt(out):
    judged = of(out, "exports/metrics.json")["families"]["text_to_sql"]
    assert set(judged["metrics"]["suite"]["baselines"]) == {"base", "base with examples", "nearest neighbour"}
    assert judged["verdict"]["word"] == "not learnt"  # four steps on a base that knows nothing
    tables = judged["sql"]
    assert {row["name"] for row in tables["hardness"]} <= {"easy", "medium", "hard", "extra"}
    assert len(tables["answers"]) == 12 and sum(row["count"] for row in tables["errors"]) > 0


def test_nothing_is_written_beside_the_databases(out):
    """They are the user's, and mounted read-only in containers."""
    folder = out / "data/demo/databases"
    assert {path.suffix for path in folder.iterdir()} == {".sqlite"}


def test_the_report_shows_answers_questions_and_what_is_wrong(out):
    page = (out / "exports/report.html").read_text(encoding="utf-8")
    for expected in ('id="answers"', 'id="right"', 'id="questions"', "nearest neighbour", "new composition"):
        assert expected in page, expected
    assert "question to SQL" in (out / "exports/README.md").read_text(encoding="utf-8")


def test_a_proof_by_peft_prints_no_warning_of_the_libraries(out, capfd):
    about = of(out, "exports/receipt.json")["families"]["text_to_sql"]["files"]["adapter"]["about"]
    first = {key: about[key][:1] for key in ("prompts", "answers")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert adapter.prove(out / "exports/adapter", {**about, **first})["of"] == 1
    assert capfd.readouterr() == ("", "")


def test_an_adapter_is_proved_on_a_base_that_was_moved(out, tmp_path, monkeypatch):
    about = of(out, "exports/receipt.json")["families"]["text_to_sql"]["files"]["adapter"]["about"]
    about = {**about, "prompts": about["prompts"][:1], "answers": about["answers"][:1]}
    moved = {**about, "base": str(tmp_path / "gone")}
    with pytest.raises(ExportError, match=r"no longer in .*gone. Name its folder in ATHANOR_BASE"):
        adapter.prove(out / "exports/adapter", moved)
    monkeypatch.setenv("ATHANOR_BASE", about["base"])
    assert adapter.prove(out / "exports/adapter", moved)["same_answers"] == 1


def test_a_base_is_converted_from_gguf_without_progress_bars_and_states_its_licence(out, tmp_path, capfd):
    (source,) = (out / "exports/gguf").glob("*f16*.gguf")
    demo._convert(source, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert base_at(tmp_path).architecture == "llama" and licence_of(tmp_path) == ("apache-2.0", "README.md")


def test_the_same_command_trains_and_measures_nothing_again(out, capsys):
    before = (out / "checkpoints/text_to_sql/best.pt").stat()
    words = ["--preset", "debug", "--device", "cpu", "--out", str(out)]
    assert cli.main(["train", "text_to_sql", *words]) == 0
    assert cli.main(["evaluate", "text_to_sql", "--device", "cpu", "--out", str(out)]) == 0
    assert "up to date, measured before" in capsys.readouterr().out
    assert (out / "checkpoints/text_to_sql/best.pt").stat().st_mtime_ns == before.st_mtime_ns


def test_a_setting_that_changes_no_weight_trains_and_exports_nothing_again(out, capsys):
    words = ["--preset", "debug", "--device", "cpu", "--out", str(out)]
    changed = ["--set", "generation.batch_size=5", "--set", "model.gradient_checkpointing=true"]
    before = (out / "exports/merged/model.safetensors").stat().st_mtime_ns
    assert cli.main(["train", "text_to_sql", *words, *changed]) == 0
    assert cli.main(["export", "text_to_sql", "--domain", "sql", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "was trained before" in printed and "is up to date with this checkpoint" in printed
    assert (out / "exports/merged/model.safetensors").stat().st_mtime_ns == before


def test_ask_prints_a_query_and_its_rows_and_those_of_the_base(out, library, capsys):
    words = ["ask", "sql", "How", "many", "books?", "--database", str(library), "--out", str(out)]
    assert cli.main([*words, "--run", "--beside-base"]) == 0
    printed = capsys.readouterr().out
    assert "-- model" in printed and "-- base" in printed and "it does not run" in printed
    assert cli.main([*words[:5], "--out", str(out)]) == 2 and "--database is needed" in capsys.readouterr().err
    assert cli.main(["ask", "sql", " ", *words[5:]]) == 2 and "question is empty" in capsys.readouterr().err
    bad = library.with_name("bad.sqlite")
    bad.write_bytes(b"no database")
    assert cli.main([*words[:6], str(bad), "--out", str(out)]) == 3 and "bad.sqlite" in capsys.readouterr().err


def test_rows_are_printed_as_a_table(library, capsys):
    from training.domains.sql.ask import table
    from training.domains.sql.databases.execution import Executor

    with Executor(2.0) as executor:
        lines = list(table(executor.run(str(library), "SELECT name, country FROM authors ORDER BY name LIMIT 2")))
        none = list(table(executor.run(str(library), "SELECT name FROM authors WHERE id = 9")))
    assert lines == ["name  country", "----  -------", "Ada   Norway", "Ben   Chile", "(2 rows)"]
    assert none[-1] == "(0 rows)"


def test_a_base_with_other_bytes_is_refused_and_one_at_another_place_is_not(
    out, library, tmp_path, monkeypatch, capsys
):
    copy, checkpoint = tmp_path / "base", read(out / "checkpoints/text_to_sql/best.pt")
    shutil.copytree(checkpoint["settings"]["model"]["base"], copy)
    words = ["train", "text_to_sql", "--preset", "debug", "--device", "cpu", "--base", str(copy), "--out", str(out)]
    assert cli.main(words) == 0
    assert "was trained before" in capsys.readouterr().out
    path = Path(checkpoint["settings"]["model"]["base"])
    path.rename(path.with_name("moved"))
    try:
        assert cli.main(["evaluate", "text_to_sql", "--device", "cpu", "--out", str(out)]) == 2
        assert "--base: There is no folder" in capsys.readouterr().err
        assert cli.main(["evaluate", "text_to_sql", "--device", "cpu", "--base", str(copy), "--out", str(out)]) == 0
        assert "measured before" in capsys.readouterr().out
        question = ["ask", "sql", "How many books?", "--database", str(library), "--out", str(out)]
        assert cli.main(question) == 2 and "There is no folder" in capsys.readouterr().err
        assert cli.main([*question, "--base", str(copy)]) == 0
    finally:
        path.with_name("moved").rename(path)
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"] += 1e-3
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert cli.main([*words, "--set", "training.max_steps=6"]) == 2
    assert "another base" in capsys.readouterr().err


def test_right_queries_of_other_questions_are_not_learnt_and_those_of_the_same_ones_are(out):
    """The verdict on real databases: what a model answers that was trained on random labels at best."""
    rows = load_split(load_recipe("text_to_sql", "debug"), Workspace(out), "val")
    golds = [Answer((), True, row.values["sql"]) for row in rows]
    words = {}
    with Judge(rows, out / "copies", 3, 5.0, 42) as judge:
        nothing = judge.judge([Answer((), True, "")] * len(rows))
        for name, answers in (("same", golds), ("other", [*golds[1:], golds[0]])):
            found = metrics_of({TUNED: judge.judge(answers), BASE: nothing, NEIGHBOUR: nothing}, rows, set(), 42)
            words[name] = verdict(findings(found)).word
    assert words == {"same": "learnt", "other": "not learnt"}
