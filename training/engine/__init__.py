"""How anything is trained. The engine knows recipes, never a domain, a model or an export."""
