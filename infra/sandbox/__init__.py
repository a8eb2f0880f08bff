"""A small simulated world: farms, seasons, clouds, and the archive that a satellite would have made of them."""

from infra.sandbox.running import DEFAULT_SEED, Sandbox, sandbox
from infra.sandbox.world import Truth

__all__ = ["DEFAULT_SEED", "Sandbox", "Truth", "sandbox"]
