"""The domains: one folder each, with all code that is specific to a subject (model families, data, report sections)."""
