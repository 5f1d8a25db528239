"""Fast versions of what :mod:`tinygen.ops` defines."""
