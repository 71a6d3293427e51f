"""Everything that a board should be measured for, in order of worth, in pieces short enough for a lent machine."""
