"""`python -m soak.notebooks`: runs the notebooks from the first cell to the last on the stand-in for Colab
(tests/colab), at preset `debug`, each in a new session with the same drive.

    python -m soak.notebooks [--only train_amp,02,six,lost] [--output FILE]

Beside the notebooks: `six`, a session of six minutes with a training that would take days, which must end verified
before it; `market/six`, the same with a model of the markets; `saved_six`, the same for several sessions, which must be
saved and copied before it; and `lost`, sessions whose machine is gone in the middle of a training, on an empty disk
afterwards, with copies on Drive and in a bucket: the same bits are exported as without it. Needs a host where a FUSE
file system can be mounted. Exit code 1 if one fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import place
from tests.colab.conftest import PROJECT, STANDIN, Session, no_fuse
from tests.colab.running import papermill, parameters
from tests.colab.test_notebooks import NODES
from tests.object_server import BUCKET, ObjectServer, environment
from training.data.objects.address import Address
from training.data.objects.store import ObjectStore

TOY = {"ATHANOR_DOMAINS": "tests.toy_domain.domain:TOY", "PYTHONPATH": f"{STANDIN}:{PROJECT}"}
BOOST = ["--only", "boost"] + [word for name in NODES for word in ("--skip", name)]  # a family that is trained quickly
SAVING = ["--set", "training.save_steps=20"]
INDEX = "checkpoints/boost/index.json"
DAY = 24 * 3600  # seconds, of a session in colab_setup.yaml
MINUTES = 150_000  # of the made-up market: `prepare` needs 20,000 bars of five minutes


@dataclass(frozen=True)
class Trial:
    """`run` returns what was exported; it raises AssertionError if something is not as it should be."""

    name: str
    run: Callable[[Session], list[str]]
    prepare: Callable[[Session], None] = lambda session: None


def notebook(name: str, *, exports: bool = True, **more: object) -> Trial:
    """A notebook that must end with files that are safe on the drive."""

    def run(session: Session) -> list[str]:
        code, text, errors = papermill(session, f"{name}.ipynb", parameters(session, ENDS="open", **more), timeout=7200)
        assert code == 0, f"{text[-3000:]}\n{errors[-3000:]}"
        return exported(session, text) if exports else []

    return Trial(name, run, market if name.startswith("market/") else (lambda session: None))


def exported(session: Session, text: str) -> list[str]:
    """The exports that reached the drive of Google. Raises AssertionError if the notebook does not call them safe."""
    assert "safe: everything in" in text, text[-3000:]
    receipts = sorted((session.cloud / "MyDrive").rglob("exports/receipt.json"))
    assert receipts, "no receipt was uploaded"
    folder = receipts[-1].parent
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def market(session: Session) -> None:
    """Bars of a symbol on the drive, made by rules, as if they were somebody's."""
    from training.domain import Job
    from training.domains.market.demo.making import make_demo
    from training.workspace import Workspace

    raw = session.cloud / "MyDrive/ml_factory/data/raw"
    if raw.exists():
        return
    raw.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        make_demo(Job(Workspace(Path(folder)), {"minutes": MINUTES}))
        (made,) = Path(folder).rglob("PLANTED_1m.parquet")
        shutil.copy(made, raw / "MES_1m.parquet")


def six_minutes(session: Session) -> list[str]:
    """A training of days in a session of six minutes: it ends verified, before the session does."""
    seconds, text = in_six_minutes(session, ENDS="finish", DOMAIN="toy", OPTIONS=["--epochs", "100000", *BOOST])
    assert "The job is done." in text, text[-3000:]
    return [f"ended after {seconds:.0f} of 360 s", *exported(session, text)]


def six_minutes_of_market(session: Session) -> list[str]:
    """A real model of the markets, with its evaluation and exports, in a session of six minutes."""
    seconds, text = in_six_minutes(session, "market/04_train_advanced", ENDS="finish")
    assert "The job is done." in text, text[-3000:]
    return [f"ended after {seconds:.0f} of 360 s", *exported(session, text)]


def six_minutes_saved(session: Session) -> list[str]:
    """A job that needs several sessions, in one of six minutes: it is saved and copied before the session ends."""
    ends = str(session.settings_file(margin_minutes=2))  # before the end; a busy host takes a minute to save and copy
    seconds, text = in_six_minutes(
        session, "train_music_colab", ENDS="save", SETTINGS=ends, OPTIONS=["--epochs", "100000"]
    )
    assert "Everything is saved: run all cells again to continue." in text, text[-3000:]
    assert "safe: everything in" in text, text[-3000:]
    runs = sorted(path.parent.name for path in (session.cloud / "MyDrive/athanor/checkpoints").glob("*/index.json"))
    return [f"ended after {seconds:.0f} of 360 s", "saved:", *runs]


def in_six_minutes(session: Session, name: str = "train_amp_colab", **more: object) -> tuple[float, str]:
    """Run a notebook in a session that has six minutes left; returns its seconds, and what it printed."""
    began = time.time()
    toy = TOY if more.get("DOMAIN") == "toy" else {}
    code, text, errors = papermill(
        session, f"{name}.ipynb", parameters(session, **more), timeout=1200,
        ATHANOR_SESSION_STARTED=str(began - DAY + 360), **toy,
    )  # fmt: skip
    assert code == 0, f"{text[-3000:]}\n{errors[-3000:]}"
    assert time.time() - began < 360, f"it took {time.time() - began:.0f} s"
    return time.time() - began, text


def lost(session: Session) -> list[str]:
    """The same job three times: undisturbed; on a machine that is gone after its first copies to the drive; and on one
    that had copied to a bucket (a real S3 server). The next machine begins with an empty disk."""
    other = Session(make(session.folder / "undisturbed"))
    try:
        run_boost(other)
        expected = bits(other.content / "job/exports")
    finally:
        other.end()
    server = ObjectServer(session.folder / "server")
    reports = []
    try:
        keys = environment(server.endpoint)
        store = opened(Address("s3", BUCKET, "lost"), keys)
        indexes = (lambda: on_drive(session)), (lambda: (store.get(INDEX) or [None])[0])
        for place, url, index in zip(("Drive", "S3"), ("drive", str(store.address)), indexes, strict=True):
            stop = threading.Thread(target=kill_at_a_copy, args=(session, index))
            stop.start()
            code, text, _ = run_boost(session, url, keys, required=None)
            stop.join()
            assert code != 0, "the machine was not lost"
            session.lost(uploaded=True)
            _, text, _ = run_boost(session, url, keys)
            assert re.search(r"resumed at step [1-9]", text), text
            found = bits(session.content / "job/exports")
            assert found == expected, f"{place}: {sorted(found)} differ from {sorted(expected)}"
            reports.append(f"{place}: {text[text.index('resumed at') :].splitlines()[0]}, the same bits")
            session.lost(uploaded=False)
    finally:
        server.close()
    return [*reports, *sorted(expected)]


def run_boost(
    session: Session, persist: str = "drive", keys: Mapping[str, str] | None = None, required: int | None = 0
) -> tuple[int, str, str]:
    """The notebook with a small job of the toy domain."""
    chosen = parameters(
        session, DOMAIN="toy", ENDS="open", PERSIST=persist, OPTIONS=["--epochs", "400", *SAVING, *BOOST]
    )
    done = papermill(session, "train_amp_colab.ipynb", chosen, **TOY, **(keys or {}))
    assert required is None or done[0] == required, f"{done[1][-3000:]}\n{done[2][-3000:]}"
    return done


def opened(address: Address, keys: Mapping[str, str]) -> ObjectStore:
    os.environ.update(keys)
    return ObjectStore(address)


def bits(folder: Path) -> dict[str, bytes]:
    """Models and golden files: name -> content, of an .onnx without the SHA-256 of its checkpoint, which also holds how
    many seconds the training took."""
    import onnx

    found = {}
    for path in (*folder.glob("*.onnx"), *folder.glob("golden/*.npz")):
        if path.suffix == ".onnx":
            model = onnx.load(path)
            kept = [prop for prop in model.metadata_props if prop.key != "checkpoint_sha256"]
            assert len(kept) == len(model.metadata_props) - 1, path
            del model.metadata_props[:]
            model.metadata_props.extend(kept)
            found[path.name] = model.SerializeToString()
        else:
            found[path.name] = path.read_bytes()
    assert any(name.endswith(".onnx") for name in found), f"nothing was exported to {folder}"
    return found


def kill_at_a_copy(session: Session, index: Callable[[], bytes | None]) -> None:
    """kill -9 of everything that the session runs, once its second place has a checkpoint that is not of the start.
    `index`: what that place lists; None: nothing yet."""
    until = time.monotonic() + 600
    while time.monotonic() < until and steps_of(index()) == 0:
        time.sleep(0.02)
    mine = str(session.content).encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if mine in command and b"fuse_drive" not in command:
                os.kill(int(folder.name), signal.SIGKILL)


def on_drive(session: Session) -> bytes | None:
    """The index of the copies; None while there is none, or the drive is not mounted."""
    try:
        return (session.place / INDEX).read_bytes()
    except OSError:
        return None


def steps_of(index: bytes | None) -> int:
    """The step of the newest checkpoint that an index lists; 0 if there is none, or it is being written."""
    found = re.search(rb'"last.pt": *\{[^}]*"step": *(\d+)', index or b"")
    return int(found[1]) if found else 0


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


TRIALS = (
    notebook("train_music_colab"),
    notebook("train_amp_colab", OPTIONS=["--only", "lead"]),
    notebook("train_colab"),
    notebook("train_market_colab", OPTIONS=["--only", "xgboost,gru"]),
    notebook("train_brain_colab"),
    notebook("market/00_setup", exports=False),
    notebook("market/01_data_pipeline", exports=False),
    notebook("market/02_train_tabular"),
    notebook("market/03_train_sequence"),
    notebook("market/04_train_advanced"),
    notebook("market/05_train_ensemble"),
    notebook("market/06_cross_validation"),
    notebook("market/07_inference", exports=False, MODEL="xgboost"),
    Trial("market/six", six_minutes_of_market, market),
    Trial("six", six_minutes),
    Trial("saved_six", six_minutes_saved),
    Trial("lost", lost),
)


def chosen_trials(names: str | None) -> Iterator[Trial]:
    """Those whose names contain one of the words, in the order of the words."""
    if names is None:
        yield from TRIALS
    else:
        yield from dict.fromkeys(trial for word in names.split(",") for trial in TRIALS if word in trial.name)


def main(arguments: list[str] | None = None) -> int:
    """Run the trials; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m soak.notebooks", description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="A,B", help="parts of names (default: all)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="results as JSON")
    options = parser.parse_args(arguments)
    reason = no_fuse()
    if reason:
        parser.error(f"no drive can be mounted here: {reason}")
    results = []
    with tempfile.TemporaryDirectory(prefix="athanor-colab-", ignore_cleanup_errors=True) as scratch:
        sessions: dict[str, Session] = {}  # the notebooks of market/ share a drive, the others have one each
        for trial in chosen_trials(options.only):
            drive = trial.name.partition("/")[0]
            if drive not in sessions:
                sessions[drive] = Session(make(Path(scratch, drive)))
            session = sessions[drive]
            trial.prepare(session)
            began, problem, files = time.monotonic(), "", []
            try:
                files = trial.run(session)
            except AssertionError as error:
                problem = str(error)
            finally:
                session.lost(uploaded=False)
            seconds = time.monotonic() - began
            results.append({"name": trial.name, "seconds": seconds, "exported": files, "problem": problem})
            print(f"{trial.name:<28}{seconds:6.0f} s  {problem or ', '.join(files) or 'ok'}", flush=True)
            shutil.rmtree(session.folder / f"content{session.number - 1}", ignore_errors=True)
    if options.output:
        options.output.write_text(json.dumps({"host": place(), "results": results}, indent=1) + "\n", encoding="utf-8")
    return int(any(result["problem"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
