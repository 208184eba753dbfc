"""What every algorithm on trials shares: trials, replay, networks, evaluation."""
