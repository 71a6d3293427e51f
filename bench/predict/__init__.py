"""What a case takes on a GPU that is not here."""
