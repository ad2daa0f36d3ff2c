"""A job as data: the plan follows from the domain and the command alone."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.toy_domain.domain import TOY
from training.cli import main
from training.domain import Node
from training.errors import UsageError
from training.flags import add_domain_options
from training.option import Option
from training.registry import domains
from training.runner import compose
from training.runner.options import parse
from training.runner.plan import ordered, plan_of
from training.runner.shell import script

from .conftest import PROJECT

KNOWN = {**domains(), "toy": TOY}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("ATHANOR_")]:
        monkeypatch.delenv(name)


def plan(*words):
    return plan_of(parse(list(map(str, words)), KNOWN))


def names(*words):
    return [step.name for step in plan(*words).steps]


def test_a_domain_that_fans_out_has_nodes_and_a_sealed_test_is_planned_by_the_same_code():
    assert names("toy") == [
        "doctor", "prepare", "train boost", "train curve", "predict-curve", "predict-boost", "blend",
        "evaluate curve", "evaluate boost", "export", "verify", "budget",
    ]  # fmt: skip
    steps = {step.name: step for step in plan("toy").steps}
    assert steps["blend"].needs == ("prepare", "predict-curve", "predict-boost")
    assert steps["predict-curve"].needs == ("prepare", "train curve")
    assert steps["train curve"].needs == ("prepare", "train boost"), "curve uses boost"
    assert steps["train curve"].command[2:5] == ("each", "train", "curve")
    assert steps["train boost"].command[2:4] == ("train", "boost")
    assert steps["evaluate curve"].command[-1] == "--test" and steps["prepare"].command[2:5] == (
        "prepare",
        "--domain",
        "toy",
    )
    assert steps["blend"].receipt.endswith("runs/nodes/blend.json")


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        (["--skip", "blend"], {"blend"}),
        (["--skip-curve"], {"train curve", "evaluate curve"}),
        (["--skip-export"], {"evaluate curve", "evaluate boost", "export", "verify", "budget"}),
        (["--skip-manifests"], {"prepare"}),
    ],
)
def test_what_is_skipped_is_left_out_and_nothing_else(words, gone):
    assert set(names("toy")) - set(names("toy", *words)) == gone


def test_only_some_families_are_trained_and_those_that_combine_several_of_them(monkeypatch):
    assert [name for name in names("toy", "--only", "boost") if "curve" in name] == ["predict-curve"]
    assert names("toy", "--only", "curve,boost") == names("toy")
    combining = replace(TOY.families[0], name="both", uses=("curve", "boost"))
    monkeypatch.setattr(type(TOY), "families", (*TOY.families, combining))
    assert "train both" in names("toy", "--only", "boost,curve") and "train both" not in names("toy", "--only", "boost")
    with pytest.raises(UsageError, match=r"there is no curves.*prepare, train, export.*curve, boost"):
        plan("toy", "--only", "curves")


@pytest.mark.parametrize(
    ("part", "left"),
    [("prepare", ["doctor", "prepare"]), ("train", ["doctor", "train spectocloud", "train midi_generator"])],
)
def test_parts_of_a_job_for_services_that_run_one_after_another(part, left):
    assert names("--only", part) == left
    assert names("--only", "export")[1:] == [
        "evaluate spectocloud",
        "evaluate midi_generator",
        "export",
        "verify",
        "budget",
    ]


def test_options_of_a_domain_reach_the_verbs_that_take_them_and_become_mounts(tmp_path, monkeypatch):
    made = plan("toy", "--readings", tmp_path, "--noise", "0.5")
    words = {step.name: step.command for step in made.steps}
    assert "--noise" in words["prepare"] and "--noise" not in words["train boost"]
    assert words["train boost"][words["train boost"].index("--readings") + 1] == str(tmp_path)
    assert [(mount.option, mount.path) for mount in made.mounts] == [("readings", str(tmp_path))]
    labelled = plan("toy", "--readings", f"csv={tmp_path}", "--noise", "0.5")
    assert labelled.mounts == made.mounts and labelled.steps == made.steps
    verb = argparse.ArgumentParser()
    add_domain_options(verb, TOY, "prepare")
    assert verb.parse_args(["--readings", f"csv={tmp_path}"]).readings == tmp_path
    monkeypatch.setenv("ATHANOR_TOY_READINGS", str(tmp_path))
    assert plan("toy").mounts == made.mounts


def test_only_is_an_option_of_the_data_too_where_a_domain_has_it(monkeypatch):
    def words(value):
        made = plan("toy", "--only", value)
        return made.command.options["only"], [step.name for step in made.steps if step.name.startswith("train")]

    more = Option("only", "text", "devices whose name matches", verbs=("prepare",))
    monkeypatch.setattr(type(TOY), "options", (*TOY.options, more))
    assert words("amp*") == ("amp*", ["train boost", "train curve"])
    assert words("curve") == (None, ["train curve"]) and words("train")[0] is None
    prepare = next(step for step in plan("toy", "--only", "amp*").steps if step.name == "prepare")
    assert prepare.command[prepare.command.index("--only") + 1] == "amp*"


def test_a_path_that_is_neither_a_file_nor_a_folder_is_refused(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("0,0\n")
    assert [mount.path for mount in plan("toy", "--readings", path).mounts] == [str(path)]
    with pytest.raises(UsageError, match=r"--readings '.*none' is not a file or folder"):
        plan("toy", "--readings", tmp_path / "none")


def test_the_word_comes_from_the_environment_where_the_command_has_none(monkeypatch):
    monkeypatch.setenv("ATHANOR_JOB", "toy")
    assert plan().command.domain.word == "toy" and plan("music").command.domain.word == "music"
    monkeypatch.setenv("ATHANOR_JOB", "painting")
    with pytest.raises(UsageError, match=r"no domain 'painting'; there are music, sql, .*toy"):
        plan()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("Musik", "no domain 'Musik'.*Did you mean music\\?"),
        ("toy --readngs x", "toy has no option --readngs. Did you mean --readings\\?"),
        ("music --bars=x", "--bars is an option of market, not of music: ./train_cuda.sh market --bars"),
        ("--cpu toy", "the domain's word comes first: ./train_cuda.sh toy"),
        ("toy --cpu my songs", "'my' is the value of no option. A value with spaces needs quotes"),
    ],
)
def test_a_word_that_is_not_known_is_refused_with_what_it_may_have_been(words, message):
    with pytest.raises(UsageError, match=message):
        plan(*words.split(" "))


def test_nodes_that_may_run_at_once_are_one_step_where_there_are_several_gpus():
    text = script(plan("toy", "--gpus", "2"))
    (line,) = [line for line in text.splitlines() if "training node" in line]
    assert "node predict-curve predict-boost blend --domain toy" in line and "--at-once 2" in line
    assert script(plan("toy")).count("training node") == 3
    assert "training node predict-curve predict-boost blend" in script(plan("toy", "--ray", "auto"))


def test_needs_decide_the_order_and_cycles_are_refused(monkeypatch):
    nodes = [Node("b", "B", "m:f", ("a",)), Node("a", "A", "m:f", ("boost",))]
    monkeypatch.setattr(type(TOY), "nodes", lambda self: tuple(nodes))
    assert [one.name for one in ordered(TOY, ["boost"])] == ["boost", "a", "b"]
    nodes[1] = Node("a", "A", "m:f", ("b",))
    with pytest.raises(UsageError, match="a, b need each other"):
        ordered(TOY, ["boost"])
    nodes[1] = Node("a", "A", "m:f", ("no one",))
    with pytest.raises(UsageError, match="needs no one"):
        ordered(TOY, ["boost"])


def test_the_verb_prints_it_as_json(tmp_path):
    environment = {**os.environ, "ATHANOR_DOMAINS": "tests.toy_domain.domain:TOY"}
    command = [sys.executable, "-m", "training", "plan", "toy", "--readings", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    job = json.loads(done.stdout)
    assert (job["word"], job["demo"]) == ("toy", False)
    assert job["mounts"] == [{"option": "readings", "path": str(tmp_path), "kind": "path"}]
    assert job["nodes"][0]["command"][:4] == ["python", "-m", "training", "doctor"]
    assert all(set(node) >= {"title", "command", "needs", "receipt"} for node in job["nodes"])


def test_planning_needs_the_standard_library_alone():
    """The host's own Python makes the plan, before there is an environment."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-S", "-m", "training.runner", "--", "--preset", "demo"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "steps() {" in done.stdout


def test_compose_and_its_settings_follow_from_the_options():
    for name, parts in compose.FILES.items():
        text = (PROJECT / name).read_text(encoding="utf-8")
        assert compose.rewritten(text, parts) == text, f"{name} is out of date: python -m training.runner.compose"


def test_changed_settings_are_checked_before_the_data_is_prepared():
    first = plan("toy", "--set", "seed=1", "--set", "curve:optim.lr=1", "--preset", "debug").steps[0]
    assert first.name == "doctor" and "--preset debug" in " ".join(first.command)
    assert [w for w in first.command if w.startswith("--set")] == [
        "--set=curve:seed=1", "--set=curve:optim.lr=1", "--set=boost:seed=1",
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["--cpu"], ["music", "--cpu"]])
def test_the_verb_plan_takes_the_words_of_the_runner_also_a_flag_first(words, capsys):
    assert main(["plan", *words]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["word"] == "music" and shown["nodes"][0]["name"] == "doctor"
