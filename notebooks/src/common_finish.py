# %% [markdown]
# ## 7. Watch it until the end
#
# TensorBoard reads the session's own disk, in the background. The cell then prints the job's output until it ends, which also
# keeps the session from counting as idle. The stop button saves first. If the Drive is lost meanwhile, it is mounted again.

# %%
if TENSORBOARD:
    from tensorboard import notebook

    notebook.start(f"--logdir {job.out}/runs")
follow_training()

# %% [markdown]
# ## 8. Safe?
#
# Waits until the Drive has uploaded everything, mounts it again and compares every file. Only then does it print "safe".
# `UNASSIGN` ends the session afterwards, so that it costs no more units. After "Everything is saved: run all cells again",
# open this notebook in a new session and choose Run all: it continues.

# %%
finish(unassign=UNASSIGN)

# %% [markdown]
# ## 9. What came out
#
# The models, the report (`report.html`: download it, and open it) and the metrics.

# %%
for path in sorted((job.out / "exports").rglob("*")):
    if path.is_file():
        print(f"{path.stat().st_size / 1e6:9.2f} MB  {path.relative_to(job.out)}")
