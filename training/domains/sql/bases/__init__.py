"""Base models: a folder of the user's, the demo's, and a small one that is made here."""
