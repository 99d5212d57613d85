"""What `experiments.sample` draws, measures and shows."""
