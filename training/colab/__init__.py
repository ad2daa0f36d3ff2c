"""What a notebook on Google Colab needs around a job: the drive, the GPU, the end of the session, processes that save
when they are stopped.

Uses the standard library only: it runs in the notebook's kernel, whose packages stay as they are. Everything else runs
in the project's environment, as processes. training/colab_setup.py lists what is public.
"""
