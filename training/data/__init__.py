"""Files, JSONL manifests, memory-mapped stores, and the sandbox in which untrusted files are decoded."""
