"""Sharded preparation: shares by content, merged to the same bytes; missing and foreign shares are reported."""

import json
import shutil
from pathlib import Path

import pytest

from tests.domains.music.corpora import job, make_corpus, rows, run, write_mid
from training.cli import main
from training.data import shards
from training.data.media import Shard
from training.data.merging import contents
from training.data.shards import shard_of
from training.data.store import Store
from training.domains.music.sharding import decode_shard
from training.errors import DataError, UsageError

KINDS = ("logmel", "notes", "tokens")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Nine songs and a copy of one of them."""
    root = make_corpus(tmp_path_factory.mktemp("corpus"))
    write_mid(root / "midi/calm/copy.mid", 0)
    return root


@pytest.fixture(scope="module")
def parts(corpus, tmp_path_factory) -> Path:
    """An output folder with the copied results of three hosts, which wrote to separate folders."""
    root = tmp_path_factory.mktemp("parts")
    for number in (3, 1, 2):
        share(corpus, root / f"host {number}", f"{number}/3")
        shutil.copytree(root / f"host {number}/cache", root / "out/cache", dirs_exist_ok=True)
    return root / "out"


def share(corpus: Path, out: Path, which: str) -> dict:
    return decode_shard(job(corpus, out, workers=1), shard_of(which))


@pytest.fixture
def hosts(corpus, parts, tmp_path) -> Path:
    """A root with three finished shares to merge, and the corpus."""
    shutil.copytree(parts, tmp_path / "out")
    for name in ("audio", "midi"):
        (tmp_path / name).symlink_to(corpus / name)
    return tmp_path


def shard_files(out: Path) -> dict[str, bytes]:
    found = [path for kind in KINDS for path in sorted((out / "cache" / kind).rglob("*.shard"))]
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


def test_the_store_does_not_depend_on_the_number_of_hosts(hosts, corpus, tmp_path):
    run(hosts, merge=3)
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("audio", "midi"):
        (alone / name).symlink_to(corpus / name)
    share(alone, alone / "out", "1/1")
    run(alone, merge=1)
    assert shard_files(hosts / "out") == shard_files(alone / "out")
    assert list(shard_files(hosts / "out")) == [f"cache/{kind}/00000001.shard" for kind in KINDS]


def test_a_merged_corpus_equals_that_of_one_host(hosts, corpus, tmp_path):
    merged = run(hosts, merge=3)
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("audio", "midi"):
        (plain / name).symlink_to(corpus / name)
    usual = run(plain)
    assert merged.digest == usual.digest
    assert merged.songs == usual.songs
    for name in ("midi_train", "midi_val", "spectocloud_train", "spectocloud_val"):
        assert [row["id"] for row in rows(hosts, name)] == [row["id"] for row in rows(plain, name)]
    for kind in KINDS:
        assert contents(hosts / "out/cache" / kind) == contents(plain / "out/cache" / kind)


def test_shares_are_disjoint_and_a_merge_decodes_nothing(hosts, monkeypatch):
    for kind in KINDS:
        keys = [
            {bytes(key) for shard in Store(folder, parts=False).shards() for key in shard.table["key"]}
            for folder in sorted((hosts / "out/cache" / kind).glob("part-*"))
        ]
        assert sum(map(len, keys)) == len(set().union(*keys)) == 9  # of ten scores, two are one
    monkeypatch.setattr("training.data.encode.sandbox.run", lambda *a, **k: pytest.fail("decoded again"))
    summary = run(hosts, merge=3)
    assert (summary.pairs, summary.midi_files) == (9, 10)
    assert "3 shards merged: 9 tokens, 9 notes, 9 logmel" in summary.output
    assert run(hosts, merge=3).up_to_date  # a second merge has nothing to do


def test_the_share_of_a_file_depends_on_its_content_alone():
    for of in (1, 2, 7):
        shares = [Shard(number, of) for number in range(1, of + 1)]
        owners = [[share.number for share in shares if share.has(bytes([n]) * 32)] for n in range(200)]
        assert all(len(owner) == 1 for owner in owners)
        assert {owner[0] for owner in owners} == set(range(1, of + 1))


def test_a_missing_share_is_reported_with_its_command(hosts):
    (hosts / "out/cache/shards/2-of-3.json").unlink()
    with pytest.raises(DataError, match=r"Shard 2/3 is missing.*Found: 1-of-3, 3-of-3.*prepare --shard 2/3"):
        run(hosts, merge=3)
    with pytest.raises(DataError, match=r"Shard 1/4 is missing"):
        run(hosts, merge=4)


def test_a_share_whose_store_was_not_copied_is_incomplete(hosts):
    shutil.rmtree(hosts / "out/cache/notes/part-3-of-3")
    with pytest.raises(DataError, match=r"Shard 3/3 is incomplete: .*part-3-of-3"):
        run(hosts, merge=3)


def test_a_share_of_other_files_is_foreign(hosts, corpus, tmp_path):
    other = make_corpus(tmp_path / "other", songs=4)
    share(other, hosts / "out", "2/3")
    with pytest.raises(DataError, match=r"Shard 2/3 .* was made from other files"):
        run(hosts, merge=3)


def test_a_share_by_other_code_is_foreign(hosts):
    path = hosts / "out/cache/shards/1-of-3.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"versions": content["versions"] | {"tokens": "tokens-0"}}))
    with pytest.raises(DataError, match=r"Shard 1/3 .* another version of this program"):
        run(hosts, merge=3)


def test_a_share_of_another_division_is_foreign(hosts, corpus):
    shutil.copytree(hosts / "out/cache/tokens/part-1-of-3", hosts / "out/cache/tokens/part-1-of-5")
    with pytest.raises(DataError, match=r"part-1-of-5 is not one of 3 shards"):
        run(hosts, merge=3)


def test_a_damaged_record_is_not_merged(hosts):
    path = next((hosts / "out/cache/notes").glob("part-*/*.shard"))
    content = bytearray(path.read_bytes())
    content[64 + 300] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged"):
        run(hosts, merge=3)


def test_an_interrupted_share_is_continued(corpus, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_atomic", lambda *a: pytest.fail("interrupted"))
        with pytest.raises(pytest.fail.Exception):
            share(corpus, out, "1/2")
    monkeypatch.setattr("training.data.encode.sandbox.run", lambda *a, **k: pytest.fail("decoded again"))
    assert share(corpus, out, "1/2")["stores"]["tokens"][0] > 0


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2"])
def test_an_invalid_share_is_wrong_usage(text):
    with pytest.raises(UsageError, match="--shard I/N"):
        shard_of(text)


def test_shards_and_merge_on_the_command_line(corpus, tmp_path, capsys):
    folders = ["--audio-root", str(corpus / "audio"), "--midi-root", str(corpus / "midi"), "--out", str(tmp_path)]
    assert main(["prepare", *folders, "--merge", "2"]) == 3
    assert [main(["prepare", *folders, "--shard", f"{n}/2"]) for n in (1, 2)] == [0, 0]
    assert not (tmp_path / "data/manifests/summary.json").exists()
    assert main(["prepare", *folders, "--merge", "2"]) == 0
    assert (tmp_path / "data/manifests/midi_train.jsonl").exists()
    assert "2 shards merged" in capsys.readouterr().out
    assert main(["prepare", "--out", str(tmp_path), "--shard", "1/2"]) == 2
