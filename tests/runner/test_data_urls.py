"""Data options that name a URL: fetched first, to a separate folder for each address, and used from there."""

from __future__ import annotations

import os

import pytest

from tests.toy_domain.domain import TOY, Toy
from training.errors import UsageError
from training.option import Option
from training.registry import domains
from training.runner.options import parse
from training.runner.plan import plan_of
from training.runner.shell import paths, script

KNOWN = {**domains(), "toy": TOY}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("ATHANOR_")]:
        monkeypatch.delenv(name)


def plan(*words):
    return plan_of(parse(list(map(str, words)), KNOWN))


def test_a_url_is_fetched_before_the_host_is_checked_and_used_from_the_disk(tmp_path):
    made = plan("music", "--midi-root", "s3://bucket/songs/midi", "--out", tmp_path)
    first, second = made.steps[:2]
    folder = first.command[-1]
    assert first.command[:4] == ("-m", "training", "fetch", "s3://bucket/songs/midi")
    assert folder.startswith(f"{tmp_path}/data/fetched/midi-root-") and not first.needs
    assert second.name == "doctor" and second.needs == ("fetch midi-root",)
    for step in made.steps:
        if step.name in ("doctor", "prepare", "train midi_generator"):
            assert step.command[step.command.index("--midi-root") + 1] == folder
    assert made.mounts == () and "data/fetched" not in paths(made.command), "it is below --out, which is mounted"


def test_each_address_has_a_folder_and_the_same_address_the_same_one(tmp_path):
    def folder(url):
        return plan("music", "--midi-root", url, "--out", tmp_path).steps[0].command[-1]

    assert folder("s3://bucket/a") == folder("s3://bucket/a/") != folder("s3://bucket/b") != folder("gs://bucket/a")


def test_a_file_is_fetched_alone_and_named(tmp_path):
    made = plan("sql", "--train", "gs://bucket/data/train.jsonl", "--out", tmp_path)
    prepare = next(step for step in made.steps if step.name == "prepare")
    named = prepare.command[prepare.command.index("--train") + 1]
    assert named == f"{made.steps[0].command[-1]}/train.jsonl"
    with pytest.raises(UsageError, match=r"--train gs://bucket names a bucket, not a file"):
        plan("sql", "--train", "gs://bucket")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("amp", "--captures", "s3://b", "--out", "."), "does not name a bucket"),
        (("amp", "--captures", "ftp://bucket/a"), r"ftp:// is not supported: use s3://"),
        (("music", "--data-mount", "s3://b", "--out", "."), "does not name a bucket"),
    ],
)
def test_addresses_that_cannot_be_fetched_are_refused(words, message):
    with pytest.raises(UsageError, match=message):
        plan(*words)


@pytest.mark.parametrize(
    ("words", "needed"),
    [((), "no"), (("--midi-root", "s3://bucket/a"), "yes"), (("--persist", "s3://bucket/a"), "yes")],
)
def test_the_client_of_object_stores_is_installed_where_one_is_used(words, needed, tmp_path):
    assert f"uses_store={needed}\n" in script(plan("music", *words, "--out", tmp_path))


def test_a_variable_may_be_a_url_too(tmp_path, monkeypatch):
    monkeypatch.setenv("ATHANOR_MIDI_ROOT", "az://container/midi")
    assert plan("music", "--out", tmp_path).steps[0].name == "fetch midi-root"


@pytest.mark.parametrize(("url", "name"), [("s3://bucket/di", ""), ("s3://bucket/di/take 1.wav", "/take 1.wav")])
def test_an_option_for_a_file_or_a_folder_takes_either(url, name, tmp_path):
    for words, verb in ((("amp", "--captures", "s3://bucket/a", "--di"), "prepare"), (("toy", "--readings"), "doctor")):
        made = plan(*words, url, "--out", tmp_path)
        fetch = next(step for step in made.steps if step.command[3:4] == (url,))
        step = next(step for step in made.steps if step.name == verb)
        assert step.command[step.command.index(words[-1]) + 1] == f"{fetch.command[-1]}{name}"


class Archive(Toy):
    options = (*Toy.options, Option("archive", "folder", "", environment="ATHANOR_ARCHIVE", verbs=(),
                                    parts={"readings": "csv"}))  # fmt: skip


@pytest.mark.parametrize("by", ["option", "variable"])
def test_a_url_of_several_parts_stands_for_the_options_that_are_not_given(by, tmp_path, monkeypatch):
    def fetched(*words):
        command = parse(["toy", *words, "--out", str(tmp_path)], {"toy": Archive()})
        return [str(one.address) for one in command.fetched]

    words = ["--archive", "s3://bucket/x/"] if by == "option" else []
    if by == "variable":
        monkeypatch.setenv("ATHANOR_ARCHIVE", "s3://bucket/x/")
    assert fetched(*words) == ["s3://bucket/x/csv"]
    assert fetched(*words, "--readings", "gs://bucket/other") == ["gs://bucket/other"]
    monkeypatch.setenv("ATHANOR_TOY_READINGS", "az://container/third")
    assert fetched(*words) == ["az://container/third"]


def test_a_music_dataset_in_a_bucket_is_named_once(tmp_path):
    made = plan("music", "--data-mount", "s3://bucket/songs", "--out", tmp_path)
    assert [step.command[3] for step in made.steps[:2]] == ["s3://bucket/songs/audio", "s3://bucket/songs/midi"]
    prepare = next(step for step in made.steps if step.name == "prepare").command
    assert prepare[prepare.index("--audio-root") + 1] == made.steps[0].command[-1] and made.mounts == ()


def test_published_shards_take_the_place_of_preparing(tmp_path):
    made = plan("toy", "--shards", "s3://bucket/prepared/", "--shards-gb", "20", "--out", tmp_path)
    (step,) = [step for step in made.steps if step.name == "prepare"]
    words = ("-m", "training", "fetch-shards", "s3://bucket/prepared", "--shards-gb", "20")
    assert step.command == (*words, "--domain", "toy", "--out", str(tmp_path))
    assert made.own_data == "" and not made.plain()["demo"], "it is not known whether this is a demo"
    assert "uses_store=yes" in script(made)
    assert all("prepare" in step.needs for step in made.steps if step.name.startswith("train "))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shards-gb", "20"), r"--shards-gb goes with --shards"),
        (("--shards", "s3://bucket/a", "--shards-gb", "none"), r"--shards-gb takes a number above 0"),
        (("--shards", "/a/folder"), r"/a/folder is not supported: use s3://"),
        (("--shards", "s3://bucket/a", "--readings", "."), r"leave out --readings"),
    ],
)
def test_what_cannot_be_meant_with_published_shards_is_refused(words, message):
    with pytest.raises(UsageError, match=message):
        plan("toy", *words)
