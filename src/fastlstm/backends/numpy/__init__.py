"""The definition: every operator in plain numpy, written to be obvious. All other backends are tested against it."""
