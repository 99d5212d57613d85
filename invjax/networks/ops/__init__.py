"""Hot primitives of networks, each with a fast and a stock form."""
