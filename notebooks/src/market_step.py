# %% [markdown]
# # __TITLE__
#
# __ABOUT__
#
# One of the steps of the market domain (docs/market.md); run `01_data_pipeline` first, once for a symbol. The steps share a
# folder on Drive for each symbol, so they may run in one session or in several, and several models at once in separate
# sessions. Choose Runtime → Run all.

# %% tags=["parameters"]
DOMAIN = "market"
SYMBOL = "MES"  # @param {type:"string"}
HORIZON = 20  # @param [5, 10, 15, 20] {type:"raw"}
MODEL = "__MODEL__"  # @param {type:"string"}
PRESET = "full"  # @param ["full", "small", "demo", "debug"]
REPOSITORY = "https://github.com/YOUR_USERNAME/athanor.git"  # @param {type:"string"}
REF = "main"  # @param {type:"string"}
CODE = "/content/athanor"
DRIVE = "/content/drive"
FACTORY = "MyDrive/ml_factory"  # on Drive: data/raw/SYMBOL_1m.parquet, and a folder for each symbol
PERSIST = "drive"
ENDS = "finish"  # @param ["finish", "save", "open"]
WANDB = ""  # @param {type:"string"}
TENSORBOARD = True  # @param {type:"boolean"}
UNASSIGN = False  # @param {type:"boolean"}
EXTRAS = []
OPTIONS = []  # further options of ./train_cuda.sh
SETTINGS = "training/configs/colab_setup.yaml"
OUT = "/content/ml_factory"

# %% include common_start

# %% [markdown]
# ## 4. Bars
#
# One-minute bars of the symbol are copied from Drive to the session's disk, once.

# %%
place = f"{DRIVE}/{FACTORY}/{SYMBOL}"
bars = next(iter(sorted(Path(DRIVE, FACTORY, "data/raw").glob(f"{SYMBOL}_1m.*"))), None)
assert bars, f"There is no {SYMBOL}_1m.parquet (or .csv, .csv.gz) in {DRIVE}/{FACTORY}/data/raw: upload it there."
data = upload_data_files(bars, [bars.name], settings=settings)

# %% [markdown]
# ## 5. Is everything there?
#
# One table: host, Drive, GPU, the time that is left. A training refuses to start while there is a problem.

# %%
environment = setup_colab_environment(persist=place, needs_gpu=__NEEDS_GPU__ and PRESET == "full", settings=settings)
assert environment.ok, environment.problems

# %% [markdown]
# ## 6. __STEP__
#
# __STEP_ABOUT__

# %%
step = __STEP_OPTIONS__
options = ["--bars", data, "--symbols", SYMBOL, "--horizon", HORIZON, "--preset", PRESET, *step, *OPTIONS]
job = start_training(DOMAIN, *options, persist=place, out=f"{OUT}/{SYMBOL}", ends=ENDS, wandb=WANDB, settings=settings)

# %% include common_finish
