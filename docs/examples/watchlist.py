"""Pages to keep an eye on: each night one job looks at all that are on the list, and says which have changed.

Watch some:               jobd --app docs/examples/watchlist.py watchlist add page http://localhost:8000/prices
Look at them each night:  jobd --app docs/examples/watchlist.py start
What became of them:      python docs/examples/watchlist.py    or, of one page, jobd results page --key URL
"""

import hashlib
import urllib.request
from typing import Any

from jobd import Context, Jobd

app = Jobd()
ZONE = "Europe/Berlin"


# With unique="day" a page has one result for each day, also where somebody has it looked at by hand.
@app.schedule(cron="0 3 * * *", zone=ZONE, items=app.watchlist)
@app.task(unique="day", zone=ZONE, retries=3, retry_on=OSError, backoff="1m", timeout="5m")
def page(url: str, ctx: Context) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        content = answer.read()
    digest = hashlib.sha256(content).hexdigest()
    former = app.results(page, key=url, limit=1)
    changed = bool(former) and former[0].value["sha256"] != digest
    if changed:
        ctx.log.info("%s has changed", url)
    return {"sha256": digest, "bytes": len(content), "changed": changed}


def report() -> list[str]:
    """Return a line for each page on the list: how it was last looked at, and the days on which it had changed."""
    lines = []
    for entry in app.watchlist.entries(page):
        days = [result.period for result in app.results(page, key=entry.key) if result.value["changed"]]
        lines.append(f"{entry.key}  {entry.last_status or 'not yet'}  changed: {', '.join(filter(None, days)) or '-'}")
    return lines


if __name__ == "__main__":
    print(*report(), sep="\n")
