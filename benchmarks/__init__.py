"""tinygen beside its peers: the same work in one run, and the figures that come out.

    python -m benchmarks                     everything; report.md, results.json and plots in runs/benchmarks
    python -m benchmarks steps ops           some of it
    python -m benchmarks --peers torch,jax   beside these only
    python -m benchmarks.twins vae           an untuned PyTorch twin of a demo

Reading order: works.py and ops.py say what is measured, nets.py and functional.py what the networks are, peers/ how
each library does it, costs.py what it costs at the least, timing.py how time is taken, report.py and plots.py what
comes out.
"""
