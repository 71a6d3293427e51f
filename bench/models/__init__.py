"""Models with random weights, made on the device they run on, ready to be timed."""
