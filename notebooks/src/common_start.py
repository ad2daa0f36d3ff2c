# %% [markdown]
# ## 1. Which GPU is it?
#
# Colab gives the GPU that is free. If there is none: Runtime → Change runtime type → GPU, then Run all again.

# %%
# !nvidia-smi

# %% [markdown]
# ## 2. Drive and code
#
# Colab asks for access to your Drive, where verified copies of checkpoints and exports are kept. The code goes to the
# session's own disk, in the version that `REF` names.

# %%
import os
import subprocess
import sys
from pathlib import Path

if PERSIST == "drive":
    from google.colab import drive

    drive.mount(DRIVE)
if not Path(CODE, "train_cuda.sh").exists():
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, CODE], check=True)
    subprocess.run(["git", "-C", CODE, "checkout", "--quiet", REF], check=True)
sys.path.insert(0, CODE)
os.chdir(CODE)

# %% [markdown]
# ## 3. The environment
#
# Everything runs in the project's own environment, as separate processes; the packages of this notebook's kernel are not
# touched. The torch that Colab has is used if its version is one that the project was tested with.

# %%
from training.colab_setup import *

setup_environment(DOMAIN, *EXTRAS)
settings = load_settings(Path(SETTINGS))
