"""Facts: plain types, tables, queries, the read model and its cache keys."""
