"""SQL text as trees: parsing, checking against a schema, templates, canonical text, hardness."""
