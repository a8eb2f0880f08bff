"""How the tables came to be, step by step; `models.schema.upgrade` takes them."""
