"""What happens to long runs when things go wrong: scripts that measure it, each with a short version in the tests."""
