"""The stages of a job. Most commands of `python -m training` have a file of their name here: prepare, train, verify."""
