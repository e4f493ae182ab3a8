"""A daemon without beats: nothing but what is under test wakes it, writes or moves anything."""

from __future__ import annotations

NEVER = 100_000_000.0  # seconds
WITHOUT_BEATS = dict.fromkeys(("heartbeat", "recover_every", "time_out_every", "reconcile_every", "prune_every"), NEVER)
