"""Pages that run exported models in a browser: a static folder, and a server for it on this host alone."""
