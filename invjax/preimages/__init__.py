"""Which images have this code: Markov chains, and images that keep apart."""
