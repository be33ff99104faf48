"""What an operator may see and do: one module a noun. The command line calls it, and later the console."""
