"""How much a model knows: MMLU by subject, category and on the whole, after training or before."""
