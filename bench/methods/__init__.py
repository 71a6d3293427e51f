"""What trains, and how it is computed: a folder for each method, a small file in it for each impl."""
