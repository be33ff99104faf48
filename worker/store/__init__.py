"""PostgreSQL: the one MetaData, the worker's own tables, partitions, migrations. Knows no family by name."""
