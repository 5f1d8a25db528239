"""Lets `from demos import common` work where this folder itself is on the path instead of its parent: in a script
started as `python demos/NAME.py`, and in a notebook opened here. A module with a `__path__` is a package.
"""

import os

__path__ = [os.path.dirname(os.path.abspath(__file__))]
