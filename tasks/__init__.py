"""Work: imagery, indices, farms: pure functions, and one thin layer of Prefect tasks over them."""
