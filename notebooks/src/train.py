# %% [markdown]
# # __TITLE__ on Google Colab
#
# __ABOUT__
#
# Choose Runtime → Run all. You may close the lid: Colab Pro+ continues in the background, and a session that ends is continued
# by the next one, with the same cells. docs/training_colab_setup.md explains every step.

# %% tags=["parameters"]
DOMAIN = "__WORD__"
REPOSITORY = "https://github.com/YOUR_USERNAME/athanor.git"  # @param {type:"string"}
REF = "main"  # @param {type:"string"}
CODE = "/content/athanor"
DRIVE = "/content/drive"
PERSIST = "drive"  # @param ["drive", "none"] {allow-input: true}
DATA = ""  # @param {type:"string"}
PRESET = "__PRESET__"  # @param ["full", "small", "demo", "debug"]
SAVE_STEPS = __SAVE_STEPS__  # @param {type:"integer"}
ENDS = "finish"  # @param ["finish", "save", "open"]
WANDB = ""  # @param {type:"string"}
TENSORBOARD = True  # @param {type:"boolean"}
UNASSIGN = False  # @param {type:"boolean"}
EXTRAS = []
OPTIONS = []  # further options of ./train_cuda.sh
SETTINGS = "training/configs/colab_setup.yaml"
OUT = "/content/athanor-job"

# %% include common_start

# %% [markdown]
# ## 4. Data
#
# __DATA__ `DATA` empty: demo data, made by rules; every result says so. It is copied to the session's disk once: reading from
# Drive is slow. The three ways to bring data are in docs/training_colab_setup.md.

# %%
data = upload_data_files(DATA, settings=settings) if DATA else None
DATA_OPTIONS = __DATA_OPTIONS__ if data else []

# %% [markdown]
# ## 5. Is everything there?
#
# One table: host, Drive, GPU, the time that is left. A training refuses to start while there is a problem.

# %%
environment = setup_colab_environment(persist=PERSIST, needs_gpu=PRESET not in ("debug", "demo"), settings=settings)
assert environment.ok, environment.problems

# %% [markdown]
# ## 6. Train
#
# Returns at the first step; the job runs on in the background, also if this kernel is restarted. `ENDS = "finish"`: the job ends
# with verified exports before the session does. `"save"`: it trains until then, and the next session continues. A
# checkpoint is saved every ten minutes, and every `SAVE_STEPS` steps if that is above 0.

# %%
saving = setup_checkpointing(steps=SAVE_STEPS, settings=settings) if SAVE_STEPS else []
options = ["--preset", PRESET, *saving, *DATA_OPTIONS, *OPTIONS]
job = start_training(DOMAIN, *options, persist=PERSIST, out=OUT, ends=ENDS, wandb=WANDB, settings=settings)

# %% include common_finish
