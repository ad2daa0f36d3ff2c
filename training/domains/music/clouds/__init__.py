"""The renderer: draws a cloud of particles from the notes in a window and an emotion."""
