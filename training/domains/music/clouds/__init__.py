"""The renderer: notes in a window and an emotion become the cloud that shows them."""
