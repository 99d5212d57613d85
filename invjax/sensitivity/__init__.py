"""What a representation responds to: Jacobian, transformations, channels, neurons."""
