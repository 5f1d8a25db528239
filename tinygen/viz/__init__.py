"""Pictures: grids, labelled rows, curves, latent maps, histograms, bars, animations, graphs of computations; and
pictures that explain: matrices, im2col, zero insertion, optimisers' paths, noise schedules, the flow of gradients.

Every function takes tensors (on any device) or NumPy arrays, draws in memory without a display or any global
plotting state, and writes its file whole or not at all. Drawing needs matplotlib and Pillow, which are
imported by the first picture and not by ``import tinygen``.
"""

from tinygen.viz.animation import save_gif
from tinygen.viz.curves import save_curves
from tinygen.viz.descent import descend, save_descent
from tinygen.viz.distributions import save_bars, save_histogram
from tinygen.viz.fields import save_fields
from tinygen.viz.flow import gradient_flow, save_gradient_flow
from tinygen.viz.graph import computation_graph, save_graph
from tinygen.viz.grids import make_grid, save_grid, save_rows
from tinygen.viz.latent import principal_axes, save_latent_map, save_manifold
from tinygen.viz.matrices import save_matrices
from tinygen.viz.schedules import save_schedule
from tinygen.viz.windows import save_im2col, save_zero_insertion

__all__ = [
    "computation_graph",
    "descend",
    "gradient_flow",
    "make_grid",
    "principal_axes",
    "save_bars",
    "save_curves",
    "save_descent",
    "save_fields",
    "save_gif",
    "save_gradient_flow",
    "save_graph",
    "save_grid",
    "save_histogram",
    "save_im2col",
    "save_latent_map",
    "save_manifold",
    "save_matrices",
    "save_rows",
    "save_schedule",
    "save_zero_insertion",
]
