"""What several tests need: publishing, running workers, reading tables, and the ledger that is every test's verdict."""
