"""`prepare` for any domain: named data is prepared, otherwise demo data; shares of the data on other hosts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.data.rows import NO_SCHEMA
from training.domain import Domain, Job
from training.errors import UsageError
from training.option import Option
from training.stages.prepare import prepare
from training.workspace import Workspace


class Recording(Domain):
    """A domain that notes what it is called with."""

    word, title, sentence = "recording", "Recording", "Notes."
    families = ()
    val_split, demo_val_split = 0.15, 0.3
    options = (
        Option("photo-root", "folder", "photographs"),
        Option("captions", "file", "texts", runner=False, verbs=("prepare",)),
        Option("size", "number", "pixels", verbs=("prepare",)),
        Option("mount", "folder", "of the runner alone", verbs=()),
    )

    def __init__(self):
        self.calls = []

    def schema(self):
        return NO_SCHEMA

    def demo(self, job):
        self.calls.append("demo")
        return {"photo_root": job.workspace.root / "demo"}

    def prepare(self, job):
        self.calls.append(("prepare", dict(job.options), job.seed))


class Shared(Recording):
    def prepare_share(self, job, number, of):
        self.calls.append((number, of, dict(job.options)))
        return f"share {number} of {of}"


@pytest.fixture
def call(tmp_path):
    """call(domain, **options) -> what was printed."""

    def run(domain, **options):
        messages = []
        prepare(domain, Job(Workspace(tmp_path), options, 7, say=messages.append))
        return "\n".join(messages)

    return run


def test_named_data_is_prepared_with_absolute_paths_and_the_domains_share(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    domain = Recording()
    assert call(domain, photo_root=Path("photos"), captions=None, size=3) == ""
    (made,) = domain.calls
    assert made == ("prepare", {"photo_root": tmp_path / "photos", "captions": None, "size": 3, "val_split": 0.15}, 7)
    call(domain, photo_root=tmp_path, val_split=0.4)
    assert domain.calls[1][1]["val_split"] == 0.4


def test_without_data_demo_data_is_made_and_announced(call, tmp_path):
    domain = Recording()
    messages = call(domain, size=3)
    assert "No data was named" in messages and "synthetic: true" in messages
    about = domain.demo_text()
    assert all(text in messages for text in (about.shows, about.gives, about.next)) and "--photo-root DIR" in about.next
    assert domain.calls[0] == "demo"
    assert domain.calls[1][1] == {"size": 3, "photo_root": tmp_path / "demo", "val_split": 0.3}
    call(domain, val_split=0.5)
    assert domain.calls[3][1]["val_split"] == 0.5


def test_demo_data_never_replaces_manifests_of_real_data(call, tmp_path):
    domain = Recording()
    summary = Workspace(tmp_path).manifests / "summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text(json.dumps({"synthetic": False}))
    with pytest.raises(UsageError, match=r"manifests of real data; without --photo-root the demo data would replace"):
        call(domain)
    assert domain.calls == []
    call(domain, photo_root=tmp_path)
    summary.write_text(json.dumps({"synthetic": True}))
    call(domain)
    assert len(domain.calls) == 3


@pytest.mark.parametrize("options", [{"shard": "1/2"}, {"merge": 2}, {"ray": "auto"}])
def test_shares_require_named_data(call, options):
    domain = Shared()
    with pytest.raises(UsageError, match="--photo-root"):
        call(domain, **options)
    assert domain.calls == []


def test_a_share_is_decoded_and_nothing_else(call, tmp_path):
    domain = Shared()
    assert call(domain, photo_root=tmp_path, shard="2/3") == "share 2 of 3"
    ((number, of, options),) = domain.calls
    assert (number, of, options["photo_root"]) == (2, 3, tmp_path)
    with pytest.raises(UsageError, match="--shard I/N"):
        call(domain, photo_root=tmp_path, shard="3/2")


def test_a_domain_without_shares_refuses_them(call, tmp_path):
    with pytest.raises(UsageError, match="Recording does not prepare data on several hosts"):
        call(Recording(), photo_root=tmp_path, shard="1/2")


def test_shares_are_merged_by_the_domain(call, tmp_path):
    domain = Shared()
    call(domain, photo_root=tmp_path, merge=3)
    assert domain.calls[0][1]["merge"] == 3
