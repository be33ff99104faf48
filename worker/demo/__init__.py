"""The demonstration: simulated agents, or recorded ones, at work with real workers on a throw-away broker and database."""
