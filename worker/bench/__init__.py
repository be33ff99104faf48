"""`worker bench`: a short measurement of an installation, and where the time goes: broker, database or worker."""
