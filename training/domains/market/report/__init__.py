"""The domain's sections of the report."""
