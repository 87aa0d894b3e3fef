"""Headers changed at random, and what they mean by their standards: see `core`."""
