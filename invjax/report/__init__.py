"""What a run shows for itself: contact sheets and the HTML gallery."""
