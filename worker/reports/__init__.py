"""Post-mortem reports: documented queries with parameters; `worker report` asks them."""
