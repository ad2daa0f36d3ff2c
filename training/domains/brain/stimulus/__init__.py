"""The stimulus: films, sound, frames and annotations, in the bins of the volumes."""
