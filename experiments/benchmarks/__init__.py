"""What `experiments.benchmark` times: a file per case, and what the cases share."""
