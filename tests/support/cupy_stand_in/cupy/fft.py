"""Nothing of it is used; array-api-compat asks for the module."""
