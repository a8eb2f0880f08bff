"""Weather by cell: where farms lie on the sources' grids, how the sources are asked, and what their answers mean."""
