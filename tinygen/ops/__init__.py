"""The ops: one file per family, each with its formula, its vjp and the derivation between them."""
