"""Helpers of the rows about training: the simulated power cut is realistic, and a difference of one bit is found."""

import os
import random
from functools import partial

import pytest
import torch

from soak import power
from soak.processes import NotHeld, forked
from soak.runs import differences, expect_same, history, merged, saved, train
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder


def write(folder, record, acts):
    """Run `acts` on files of `folder`, while `Watch` records this process's writing."""
    watch = power.Watch(folder, record)
    for act in acts:
        act(folder)
    return watch.acts


def put(name, text, sync):
    def act(folder):
        with (folder / name).open("w") as file:
            file.write(text)
            file.flush()
            if sync:
                os.fsync(file.fileno())

    return act


def rename(source, target):
    return lambda folder: (folder / source).replace(folder / target)


def durable(folder):
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def outcomes(tmp_path, *acts):
    """What a power cut was found to leave after `acts` in 40 draws, each as (name, content) pairs."""
    found = set()
    for number in range(40):
        folder, record = tmp_path / f"{number}", tmp_path / f"{number}-record"
        folder.mkdir()
        ended = forked(write, folder, record, acts)
        assert ended.code == 0, ended.tail
        power.cut(folder, record, random.Random(number))
        found.add(tuple(sorted((path.name, path.read_text()) for path in folder.iterdir())))
    return found


def test_after_a_power_cut_a_name_is_there_once_its_folder_was_synced(tmp_path):
    saved_well = (put("t", "content", True), rename("t", "last.pt"))
    assert outcomes(tmp_path, *saved_well, durable) == {(("last.pt", "content"),)}
    (tmp_path / "b").mkdir()
    assert outcomes(tmp_path / "b", *saved_well) == {(("last.pt", "content"),), ()}


def test_after_a_power_cut_content_that_was_not_synced_is_there_up_to_any_byte(tmp_path):
    found = outcomes(tmp_path, put("t", "content", False), rename("t", "last.pt"), durable)
    assert {content for ((_, content),) in found} == {"content"[:n] for n in range(7)}


def test_a_difference_of_one_bit_is_found(tmp_path):
    ended = forked(partial(train, tmp_path / "a", training={"epochs": 1}))
    assert ended.code == 0, ended.tail
    state = saved(tmp_path / "a")
    assert not differences(state, saved(tmp_path / "a"))
    assert sorted(history(tmp_path / "a")) == list(range(22))
    weight = next(iter(state["optimizer"]["state"].values()))["exp_avg"]
    weight.view(torch.int32)[(0,) * weight.ndim] ^= 1
    assert [text.split(":")[0] for text in differences(state, saved(tmp_path / "a"))] == [".optimizer.state.0.exp_avg"]
    folder = tmp_path / "b" / "checkpoints" / "toy"
    entry = {"step": 6, "epoch": 1, "value": None, "run_id": "x"}
    CheckpointFolder(folder).save(state, entry)
    with pytest.raises(NotHeld, match="exp_avg"):
        expect_same(tmp_path / "b", tmp_path / "a")


def test_merged_settings_change_only_the_named_keys():
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(base, {"a": {"b": 5}, "e": 6}) == {"a": {"b": 5, "c": 2}, "d": 3, "e": 6}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}
