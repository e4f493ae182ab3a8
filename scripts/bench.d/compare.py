"""Measure jobd beside its peers, in rounds, kill them all, and print two tables.

Called by scripts/bench --peers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import figures
from beside.measured import SCALES
from beside.page import fates, judged, page, summed, table
from beside.roster import BY_ID, PEERS
from beside.rounds import Measured

if TYPE_CHECKING:
    from beside.roster import Entry
from run import ROOT, say


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench --peers", description="Measure jobd beside its peers.")
    parser.add_argument(
        "--quick", action="store_true", help="small numbers, one round: shows that it works, no figures"
    )
    parser.add_argument("--only", nargs="+", choices=BY_ID, metavar="PEER", help=f"of {', '.join(BY_ID)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often everything is measured (3)")
    parser.add_argument("--kills", type=int, metavar="N", help="how often each is killed, by both signals in turn (20)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    parser.add_argument("--write", action="store_true", help="write docs/peers.md, docs/peers.json and docs/peers.png")
    given = parser.parse_args(arguments)
    if given.write and (given.quick or given.only):
        parser.error("--write is for all peers at their full size")
    if min(count for count in (given.rounds, given.kills, 0) if count is not None) < 0:
        parser.error("--rounds and --kills count from 0")
    return given


def measure(given: argparse.Namespace) -> dict[str, Any]:
    scale = "quick" if given.quick else "full"
    rounds = given.rounds if given.rounds is not None else 1 if given.quick else 3
    killed = given.kills if given.kills is not None else SCALES[scale].kills
    asked = [peer for peer in PEERS if given.only is None or peer.id in given.only]
    absent = {peer.id: why for peer in asked if (why := peer.absent)}
    for name, why in absent.items():
        say(f"{name} is left out: {why}")
    measured = Measured([peer for peer in asked if peer.id not in absent], scale)
    result: dict[str, Any] = {
        "began": figures.now(),
        "machine": figures.machine(()) | {"packages": versions(asked)},
        "scale": scale,
        "rounds": rounds,
        "kill_rounds": killed,
        "killed": SCALES[scale].killed,
        "load_before": os.getloadavg(),
        "absent": absent,
    }
    began = time.monotonic()
    measured.measure(rounds)
    measured.kill(killed)
    kills = {peer.id: summed(measured.kills[peer.id]) for peer in measured.peers if peer.id in measured.kills}
    return result | {
        "load_after": os.getloadavg(),
        "seconds": time.monotonic() - began,
        "figures": judged(measured.figures),
        "kills": kills,
        "failed": measured.failed,
        "values": measured.figures,
        "fates": measured.kills,
    }


def versions(peers: list[Entry]) -> dict[str, str]:
    return {peer.package: peer.version for peer in peers if not peer.absent}


def write(result: dict[str, Any]) -> None:
    from beside.plot import draw  # noqa: PLC0415 - only who draws needs what it draws with

    text = json.dumps(result, indent=1, ensure_ascii=False)
    (ROOT / "docs/peers.json").write_text(text + "\n", encoding="utf-8")
    (ROOT / "docs/peers.md").write_text(page(result), encoding="utf-8")
    draw(result, ROOT / "docs/peers.png")
    say("wrote docs/peers.md, docs/peers.json and docs/peers.png")


def main(arguments: list[str]) -> int:
    given = options(arguments)
    result = measure(given)
    if given.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        print(f"{table(result)}\n\n{fates(result)}")
    for what, reason in result["failed"].items():
        say(f"{what} could not be measured: {reason}")
    if given.write:
        write(result)
    return int(bool(result["failed"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
