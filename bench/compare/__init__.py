"""Comparing two runs: FASTER, SLOWER, SAME or UNCLEAR for every row, and a way to measure two checkouts for it.

Top to bottom: command -> measure (two checkouts, in turns), show (table, JSON) -> sentence -> folders (rows that match)
-> verdict (the statistics).
"""
