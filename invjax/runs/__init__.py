"""Many lanes to files: settings, targets, the runner, the folder, records."""
