"""Demos: one script per system, in `# %%` cells. ``python -m demos`` lists them."""
