"""tinygen beside its peers: the same work in one run, and the figures that come out."""
