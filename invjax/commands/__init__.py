"""What a person types: flags, exit codes, and the mains of the binaries."""
