"""Bugs of the pictures that explain: frames in the wrong place, numbers that are not those of the operation."""

from tinygen_tests.mutants.mutant import Mutant

MUTANTS = [
    Mutant(
        "im2col-frames-forget-the-stride",
        "tinygen/viz/windows.py",
        "seen = [(s[0] * i, s[1] * j,",
        "seen = [(i, j,",
        "the framed window is not the one of its column",
        "viz/test_windows.py::test_a_framed_window_holds_what_its_column_holds_and_gives_the_framed_number",
    ),
    Mutant(
        "zero-insertion-shows-the-other-filter",
        "tinygen/viz/windows.py",
        "slid = w[::-1, ::-1] if flip else w\n",
        "slid = w if flip else w[::-1, ::-1]\n",
        "flip turns the filter where it should not",
        "viz/test_windows.py::test_zero_insertion_of_the_lectures_example",
    ),
    Mutant(
        "all-frames-have-one-colour",
        "tinygen/viz/matrices.py",
        "edgecolor=_MARKS[k % len(_MARKS)]",
        "edgecolor=_MARKS[0]",
        "nobody sees which frames belong together",
        "viz/test_matrices.py::test_the_kth_frame_of_every_matrix_has_the_kth_colour_and_its_place",
    ),
    Mutant(
        "a-path-forgets-zero-grad",
        "tinygen/viz/descent.py",
        "        walker.zero_grad()\n",
        "",
        "gradients add up from step to step",
        "viz/test_descent.py::test_gradient_descent_takes_the_steps_of_its_formula",
    ),
    Mutant(
        "the-schedule-mixes-variances",
        "tinygen/viz/schedules.py",
        "x_t = np.sqrt(A[t]) * x0 + np.sqrt(1 - A[t]) * ε",
        "x_t = A[t] * x0 + (1 - A[t]) * ε",
        "ᾱ in the place of √ᾱ",
        "viz/test_schedules.py::test_the_images_are_x_t_with_one_noise_for_all",
    ),
    Mutant(
        "gradient-flow-of-the-mean-square",
        "tinygen/viz/flow.py",
        "float(np.sqrt(np.square(g).mean()))",
        "float(np.square(g).mean())",
        "no root is taken",
        "viz/test_flow.py::test_it_is_the_root_mean_square_of_each_gradient",
    ),
    Mutant(
        "gradients-in-the-graph-free-it",
        "tinygen/viz/graph.py",
        "grad(tensor, places, retain_graph=True)",
        "grad(tensor, places)",
        "a graph that was drawn cannot be swept any more",
        "viz/test_graph.py::test_gradients_and_known_values_are_written_and_nothing_is_touched",
    ),
]
