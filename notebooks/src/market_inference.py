# %% [markdown]
# # 07 Inference
#
# A model that the other notebooks trained predicts new bars: one row a decision, with the probabilities of each barrier.
# For production, use the exported ONNX instead (docs/market.md).

# %% tags=["parameters"]
DOMAIN = "market"
SYMBOL = "MES"  # @param {type:"string"}
HORIZON = 20  # @param [5, 10, 15, 20] {type:"raw"}
MODEL = "ensemble"  # @param {type:"string"}
REPOSITORY = "https://github.com/YOUR_USERNAME/athanor.git"  # @param {type:"string"}
REF = "main"  # @param {type:"string"}
CODE = "/content/athanor"
DRIVE = "/content/drive"
FACTORY = "MyDrive/ml_factory"
NEW_BARS = ""  # a file SYMBOL_1m.parquet on Drive; empty: the bars of the training
PERSIST = "drive"
EXTRAS = []
SETTINGS = "training/configs/colab_setup.yaml"
OUT = "/content/ml_factory"

# %% include common_start

# %% [markdown]
# ## 4. The models and the bars
#
# The symbol's models are restored from Drive, verified, and its bars prepared again, with the horizon of the training.

# %%
environment = setup_colab_environment(persist=f"{DRIVE}/{FACTORY}/{SYMBOL}", needs_gpu=False, settings=settings)
assert environment.ok, environment.problems
python, out = environment_python(), f"{OUT}/{SYMBOL}"
trained = upload_data_files(next(iter(sorted(Path(DRIVE, FACTORY, "data/raw").glob(f"{SYMBOL}_1m.*")))), settings=settings)
words = ["--bars", trained, "--symbols", SYMBOL, "--horizon", HORIZON, "--only", "prepare", "--native"]
run(["./train_cuda.sh", DOMAIN, *words, "--out", out, "--persist", environment.persist])
data = upload_data_files(NEW_BARS, folder=Path(OUT) / "new", settings=settings) if NEW_BARS else trained

# %% [markdown]
# ## 5. Predict
#
# One Parquet file; a copy of it goes to Drive.

# %%
import shutil

scores = Path(OUT) / f"{SYMBOL}_scores.parquet"
words = ["predict", "market", "--job", out, "--bars", data, "--symbol", SYMBOL, "--family", MODEL, "--out", scores]
run([python, "-m", "training", *words])
(Path(DRIVE, FACTORY) / "results").mkdir(exist_ok=True)
shutil.copy(scores, Path(DRIVE, FACTORY) / "results")
print(f"{scores.stat().st_size / 1e3:.0f} kB: {scores.name}")

# %% [markdown]
# ## 6. Upload it
#
# Drive uploads in the background; this waits until it has.

# %%
from google.colab import drive

drive.flush_and_unmount(timeout_ms=900_000)
