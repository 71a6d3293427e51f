"""python -m bench predict: what cases take on a board that is not here; and how far such predictions were off."""
