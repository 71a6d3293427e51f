"""python -m kernels.zoo: tries accelerate() and paca() on a tiny model of every architecture that transformers has."""
