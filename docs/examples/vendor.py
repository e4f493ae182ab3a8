"""Snapshots from a vendor who takes a while over each: ordered once, and asked about until it is there.

Order some:      VENDOR=http://localhost:8000 jobd run docs/examples/vendor.py:snapshot prices stocks
Look:            jobd list --external ID finds the job of a snapshot by the vendor's id
The vendor said it by telephone:   jobd deliver 7:prices '{"rows": 3}'
"""

import json
import os
import urllib.error
import urllib.request
from typing import Any

from jobd import Context, Fail, Jobd, Retry
from jobd.hooks import HookContext

app = Jobd()
VENDOR = os.environ.get("VENDOR", "http://localhost:8000")


def call(method: str, path: str) -> Any:
    request = urllib.request.Request(f"{VENDOR}{path}", method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@app.task(retries=3, retry_on=OSError, backoff="1s")
def snapshot(name: str, ctx: Context) -> None:
    # Stored before the order goes out: if this program dies before it knows the vendor's id, the order can be found.
    ctx.intend(f"a snapshot of {name}")
    order = call("POST", f"/orders/{name}/{ctx.idempotency_key}")
    ctx.defer(order["id"], poll_after="1m", deadline="2h")


@snapshot.poll
def ready(snapshot_id: str) -> Any:
    """Say what became of a snapshot, if it is there."""
    found = call("GET", f"/snapshots/{snapshot_id}")
    if found["state"] == "failed":
        raise Fail(found["why"])
    if found["state"] != "ready":
        raise Retry(found["state"])
    return found["result"]


@snapshot.verify
def ordered(name: str, ctx: HookContext) -> Any:
    """Look for the order of an attempt that died: None where the vendor knows of none, and it may be placed."""
    if ctx.intent is None:
        return None
    try:
        found = call("GET", f"/orders/{name}/{ctx.idempotency_key}")
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return ready(found["id"])
