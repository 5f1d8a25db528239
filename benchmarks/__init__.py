"""tinygen beside its peers: the same work in one run, and the figures that come out.

    python -m benchmarks              everything; tables in the terminal, results.json and a picture in runs/benchmarks
    python -m benchmarks steps ops    some of it
    python -m benchmarks.twins vae    an untuned PyTorch twin of a demo
"""
