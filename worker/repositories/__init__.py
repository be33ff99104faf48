"""The read side: every table by key, filter, sort and page, within a tenant; writes are events, deletes are erasure."""
