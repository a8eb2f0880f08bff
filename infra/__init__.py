"""Machines: settings, connections, Dask, embedded servers, telemetry, the command line."""
