"""The hosts in C++: they build with CMake, and give what Python gives from the same files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch

from tests.domains.amp import small
from tests.hosts.reference import piece, session
from tests.hosts.untrained import export_capture
from training.domains.amp.captures import parse_capture
from training.domains.amp.plucks import playing
from training.domains.amp.student.pair import Pair
from training.domains.music.midi.tokens import decode
from training.domains.music.midi.writer import write_midi
from training.export.receipt import merge_family
from training.workspace import PROJECT

SOURCE = PROJECT / "hosts" / "cpp"
ROOT = Path(os.environ.get("ONNXRUNTIME_ROOT", PROJECT / "hosts" / "cpp" / "build-onnxruntime"))
TARGETS = ("play_midi", "draw_cloud", "play_amp", "check_golden", "audio_thread", "rings")
MISSING = [name for name in ("cmake", "g++") if shutil.which(name) is None]
if not (ROOT / "include" / "onnxruntime_cxx_api.h").is_file():
    MISSING.append("ONNX Runtime's headers (hosts/cpp/onnxruntime.sh hosts/cpp/build-onnxruntime)")
if not Path("/usr/include/sndfile.h").is_file():
    MISSING.append("libsndfile1-dev")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"THE C++ HOSTS ARE NOT TESTED: missing {', '.join(MISSING)}")


def compiled(folder: Path, *targets: str, sanitize: str = "") -> Path:
    # -O1 compiles in two thirds of the time, and the programs wait for ONNX Runtime anyway
    about = [f"-DONNXRUNTIME_ROOT={ROOT}", f"-DSANITIZE={sanitize}", "-DCMAKE_CXX_FLAGS=-Werror",
             "-DCMAKE_CXX_FLAGS_RELEASE=-O1"]  # fmt: skip
    subprocess.run(["cmake", "-S", SOURCE, "-B", folder, *about], check=True, capture_output=True)
    made = subprocess.run(["cmake", "--build", folder, "--target", *targets], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """The folder of all programs, built once."""
    return compiled(tmp_path_factory.mktemp("build"), *TARGETS)


@pytest.fixture(scope="module")
def captures(tmp_path_factory) -> tuple[Path, dict[str, torch.nn.Module]]:
    """The exports of two captures, a WaveNet and an LSTM, and their networks."""
    folder = tmp_path_factory.mktemp("captures")
    contents = {"wave": small.wavenet(), "lstm": small.lstm()}
    networks = {name: Pair(parse_capture(data, name)).rest().students[-1] for name, data in contents.items()}
    for name, network in networks.items():
        export_capture(network, name, folder, merge_family)
    return folder, networks


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True)


@pytest.mark.parametrize(("emotion", "seed"), [([0.7, 0.8, 0.6], 3), ([-0.5, -0.4, 0.3], 12)])
def test_tokens_and_file_equal_those_of_python_for_the_same_seed(programs, exports, tmp_path, emotion, seed):
    text = ",".join(map(str, emotion))
    made = run(programs / "play_midi", "--exports", exports, "--emotion", text, "--seed", seed,
               "--tokens", tmp_path / "ids", tmp_path / "a.mid")  # fmt: skip
    assert made.returncode == 0, made.stderr
    ids = [int(line) for line in (tmp_path / "ids").read_text().split()]
    assert ids == piece(exports, emotion, seed)
    write_midi(decode(np.array(ids)), tmp_path / "b.mid")
    assert (tmp_path / "a.mid").read_bytes() == (tmp_path / "b.mid").read_bytes()


def test_another_file_of_the_step_graph_can_be_named(programs, exports, tmp_path):
    """Such as that with 8-bit weights; here a copy with another temperature in its metadata."""
    model = onnx.load(exports / "midi_generator_step.onnx")
    about = {entry.key: entry.value for entry in model.metadata_props}
    about["generation"] = json.dumps(json.loads(about["generation"]) | {"temperature": 0})
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, about)
    onnx.save(model, tmp_path / "other.onnx")
    made = run(programs / "play_midi", "--model", tmp_path / "other.onnx", "--tokens", tmp_path / "ids",
               tmp_path / "a.mid")  # fmt: skip
    assert made.returncode == 0, made.stderr
    ids = [int(line) for line in (tmp_path / "ids").read_text().split()]
    assert ids == piece(exports, [0, 0, 0.5], 1, temperature=0)


def test_a_piece_of_a_given_length_ends_soon_after_it(programs, exports, tmp_path):
    made = run(programs / "play_midi", "--exports", exports, "--seconds", 12, "--tokens", tmp_path / "ids",
               tmp_path / "a.mid")  # fmt: skip
    assert made.returncode == 0, made.stderr
    ids = np.array((tmp_path / "ids").read_text().split(), int)
    assert 12 <= decode(ids).bars.sum() <= 12 + 2 * 6


def test_clouds_equal_those_of_python(programs, exports, tmp_path):
    random = np.random.default_rng(0)
    sound = (0.2 * np.sin(np.arange(4 * 44100) * 0.05) + 0.05 * random.standard_normal(4 * 44100)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, 44100, "FLOAT")
    made = run(programs / "draw_cloud", "--exports", exports, "--every", 0.5, "--emotion", ".5,-.5,.5",
               tmp_path / "a.wav", tmp_path / "a.npy")  # fmt: skip
    assert made.returncode == 0, made.stderr
    clouds = np.load(tmp_path / "a.npy")
    assert clouds.shape == (6, 1200, 10)  # windows of 1.44 s that begin at 0, 0.5 ... 2.5 s
    padded = np.concatenate([np.zeros(1024, np.float32), sound, np.zeros(2048, np.float32)])
    begin = 3 * 22050
    front, core = (session(exports / f"{name}.onnx") for name in ("spectocloud_frontend", "spectocloud"))
    spectrogram = front.run(None, {"waveform": padded[None, begin : begin + 66560]})[0]
    mood = np.zeros((1, 64), np.float32)
    mood[0, :3] = 0.5, -0.5, 0.5
    out = core.run(None, {"spectrogram": spectrogram, "emotion": mood, "midi_features": np.zeros((1, 32), np.float32)})
    np.testing.assert_allclose(clouds[3], np.concatenate(out, axis=2)[0], atol=1e-5)


def test_a_sound_of_another_rate_is_refused_with_what_to_do(programs, exports, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(96000), 48000)
    made = run(programs / "draw_cloud", "--exports", exports, tmp_path / "a.wav", tmp_path / "a.npy")
    assert made.returncode == 1 and "48000 samples a second" in made.stderr and "ffmpeg" in made.stderr


def test_golden_files_match_and_one_changed_byte_is_refused(programs, exports, tmp_path):
    folder = tmp_path / "exports"
    shutil.copytree(exports, folder, ignore=shutil.ignore_patterns("play"))
    made = run(programs / "check_golden", folder)
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.count("trials") >= 4 and "and a sequence" in made.stdout
    for name in ("spectocloud.onnx", "golden/midi_generator_step.npz"):
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        made = run(programs / "check_golden", folder)
        assert made.returncode == 4
        line = next(line for line in made.stdout.splitlines() if line.split()[0] == name)
        assert "BAD" in line and "SHA-256" in line
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)


def test_a_model_that_computes_something_else_is_refused_though_its_digest_is_listed(programs, exports, tmp_path):
    """The comparison itself: another file whose digest the receipt has."""
    folder = tmp_path / "exports"
    shutil.copytree(exports, folder, ignore=shutil.ignore_patterns("play"))
    code = (
        "import json, onnx, hashlib, sys, numpy as np\n"
        "from onnx import numpy_helper as helper\n"
        "path = sys.argv[1] + '/spectocloud.onnx'; model = onnx.load(path)\n"
        "big = max(model.graph.initializer, key=lambda t: len(t.raw_data))\n"
        "big.CopyFrom(helper.from_array(helper.to_array(big) * np.float32(1.05), big.name)); onnx.save(model, path)\n"
        "receipt = json.load(open(sys.argv[1] + '/receipt.json'))\n"
        "receipt['families']['spectocloud']['files']['spectocloud.onnx']['sha256'] = "
        "hashlib.sha256(open(path, 'rb').read()).hexdigest()\n"
        "json.dump(receipt, open(sys.argv[1] + '/receipt.json', 'w'))\n"
    )
    subprocess.run([sys.executable, "-c", code, folder], check=True)
    made = run(programs / "check_golden", folder)
    assert made.returncode == 4 and "is not the model that was exported: differs by" in made.stdout


@pytest.mark.parametrize("name", ["wave", "lstm"])
@pytest.mark.parametrize("block", [1, 64, 997, 9000])
def test_a_capture_sounds_as_in_torch_in_blocks_of_any_length(programs, captures, tmp_path, name, block):
    folder, networks = captures
    sound = playing(0.1, small.RATE, 3)
    soundfile.write(tmp_path / "di.wav", np.stack([sound, 0 * sound], 1), small.RATE, "FLOAT")  # the left one counts
    made = run(programs / "play_amp", "--block", block, folder / name, tmp_path / "di.wav", tmp_path / "out.wav")
    assert made.returncode == 0, made.stderr
    with torch.no_grad():
        want = networks[name].play(torch.from_numpy(sound)[None])[0].numpy()
    np.testing.assert_allclose(soundfile.read(tmp_path / "out.wav")[0], want, atol=1e-4 * np.abs(want).max())


def test_the_golden_files_of_captures_match_and_a_changed_state_is_noticed(programs, captures, tmp_path):
    folder = shutil.copytree(captures[0], tmp_path / "exports")
    made = run(programs / "check_golden", folder)
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.count("and a sequence") == 2
    golden = folder / "lstm" / "golden" / "amp_stream.npz"
    arrays = dict(np.load(golden))
    arrays["steps/start/state_0"] = arrays["steps/start/state_0"] + np.float32(0.5)
    np.savez(golden, **arrays)
    receipt = json.loads((folder / "receipt.json").read_text())
    listed = receipt["families"]["amp/lstm"]["files"]["lstm/golden/amp_stream.npz"]
    listed["sha256"] = hashlib.sha256(golden.read_bytes()).hexdigest()
    (folder / "receipt.json").write_text(json.dumps(receipt))
    made = run(programs / "check_golden", folder)
    assert made.returncode == 4 and "is not the model that was exported: differs by" in made.stdout


def test_the_audio_thread_allocates_and_locks_nothing(programs, exports, captures):
    made = run(programs / "audio_thread", exports, captures[0] / "wave")
    assert made.returncode == 0, made.stdout + made.stderr
    assert "0 wrong samples; on the audio thread: 0 allocations, 0 locks" in made.stdout


def test_no_data_races_under_the_thread_sanitizer(exports, captures, tmp_path, monkeypatch):
    folder = compiled(tmp_path, "rings", "audio_thread", sanitize="thread")
    made = run(folder / "rings")
    assert made.returncode == 0 and made.stdout == "0 wrong\n", made.stdout + made.stderr
    # ONNX Runtime's library was built without the sanitizer, which therefore cannot see how its threads synchronise
    monkeypatch.setenv("TSAN_OPTIONS", "ignore_noninstrumented_modules=1")
    made = run(folder / "audio_thread", exports, captures[0] / "wave")
    assert made.returncode == 0 and "WARNING" not in made.stderr, made.stdout + made.stderr
