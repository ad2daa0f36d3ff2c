"""How a trained capture leaves: the players' own format, ONNX and CoreML in blocks, golden sounds, and its cost."""
