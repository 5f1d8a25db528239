"""Untuned PyTorch twins of the demos: what an ordinary implementation reaches in the same time on the same machine.

    python -m benchmarks.twins vae|gan|ddpm [--seconds S] [--data mnist --data-dir DIR]

Each twin is the textbook model with the settings of its best-known public code (named in its file), not adjusted to
this data: that is the point of it. It trains on the training digits for S seconds of wall time with two threads, the
time it takes to draw the samples included; then ``tinygen.metrics.judge_samples`` judges its samples as it judges the
demos'. Nothing of tinygen's models or of its training is used.
"""
