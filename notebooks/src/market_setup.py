# %% [markdown]
# # 00 Setup
#
# Mounts Drive, fetches the code, makes the environment and checks everything, without training. The other notebooks do this
# too; run this one first to see whether it works.

# %% tags=["parameters"]
DOMAIN = "market"
REPOSITORY = "https://github.com/YOUR_USERNAME/athanor.git"  # @param {type:"string"}
REF = "main"  # @param {type:"string"}
CODE = "/content/athanor"
DRIVE = "/content/drive"
FACTORY = "MyDrive/ml_factory"
PERSIST = "drive"
EXTRAS = []
OUT = "/content/ml_factory"
SETTINGS = "training/configs/colab_setup.yaml"

# %% include common_start

# %% [markdown]
# ## 4. Folders on Drive
#
# Upload your bars to `data/raw`: `MES_1m.parquet`, one file for each symbol. Everything else is made by the notebooks.

# %%
raw = Path(DRIVE, FACTORY, "data/raw")
raw.mkdir(parents=True, exist_ok=True)
print("Bars:", ", ".join(path.name for path in sorted(raw.iterdir())) or f"none yet: upload SYMBOL_1m.parquet to {raw}")

# %% [markdown]
# ## 5. Weights & Biases
#
# Optional. The key is taken from Colab's secrets (the key symbol on the left, name WANDB_API_KEY); it is printed nowhere.

# %%
print("W&B is on." if setup_wandb() else "Without W&B; metrics are in the report and in TensorBoard.")

# %% [markdown]
# ## 6. The table
#
# Host, Drive, GPU and the time that is left; then the project's own check of this host.

# %%
environment = setup_colab_environment(persist=f"{DRIVE}/{FACTORY}", needs_gpu=False, settings=settings)
run([environment_python(), "-m", "training", "doctor", "--domain", DOMAIN, "--out", OUT])
assert environment.ok, environment.problems
