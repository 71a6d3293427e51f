"""What adapter modules need of a model: its blocks, and a linear layer in either weight layout."""
