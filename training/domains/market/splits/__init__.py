"""Which decisions a model is fitted on, and which it is judged on."""
