"""How anything is trained. The engine is blind: it knows recipes, never music, models or exports."""
