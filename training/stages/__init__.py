"""One file a verb: prepare, train, evaluate, export, verify. Each reads as a sentence."""
