"""Publishing a file of events, one a line, and hearing what became of each. The command line calls it."""
