"""The demo corpus: music composed by rules, and a small synthesiser that plays it."""
