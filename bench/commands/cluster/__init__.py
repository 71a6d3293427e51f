"""python -m bench run --on slurm|local, and status."""
