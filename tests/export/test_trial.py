"""The fixed export with which a host's speed is measured is a real export: written, proved, and the same each time."""

from training.export import trial


def test_the_fixed_export_is_made_and_proved(tmp_path):
    trial.run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"trial.onnx", "trial.int8.onnx"}
    first = (tmp_path / "trial.onnx").read_bytes()
    trial.run(tmp_path)
    assert (tmp_path / "trial.onnx").read_bytes() == first
