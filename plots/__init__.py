"""Tables, figures and a report from the files of a results folder. Reads files, imports nothing of the benchmark."""
