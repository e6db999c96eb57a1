"""`python -m steelyard`: verify a snapshot, fetch evidence, follow recalls. Exit codes are those of the `steelyard` command."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, List, Optional

from . import Node, NodeError, VerifyError, verify

EXITS = {"recalled": 5, "withheld": 5, "stale": 5}
USAGE, VERIFICATION, NETWORK = 2, 4, 6
DAY = 86_400


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m steelyard", description="Verify models that were downloaded from a Steelyard node, and read nodes.",
        epilog="Exit codes: 0 good; 2 wrong usage; 4 not what was signed; 5 recalled, not for you, or too old; 6 the node does not answer.",
    )
    some = out.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = some.add_parser("verify", help="verify a downloaded snapshot offline", description="Verify a downloaded snapshot offline, against pinned roots.")
    one.add_argument("folder", help="what `snapshot_download` answered, or any folder with the release's files")
    one.add_argument("--root", action="append", required=True, metavar="FINGERPRINT", help="a nation's fingerprint, b3:…, as its people told it; repeat for witnesses")
    one.add_argument("--evidence", metavar="FILE", help="the evidence; .steelyard/evidence.json in the folder where not given")
    one.add_argument("--expect", metavar="REF", help="what it should be: nation/name, nation/name@version, nation/name:channel or b3:…")
    one.add_argument("--nation", metavar="NATION", help="your nation: its recalls bind too, and the release must be releasable to it")
    one.add_argument("--lease", type=float, metavar="DAYS", help="refuse evidence that is older")
    one.add_argument("--witnesses", type=int, default=0, metavar="N", help="so many pinned nations besides the producer must have witnessed its log")
    one.add_argument("--partial", action="store_true", help="files may lack")
    one.add_argument("--json", action="store_true", help="write the report as JSON")
    one = some.add_parser("evidence", help="fetch the evidence about a release", description="Fetch the evidence about a release from a node and put it beside a snapshot.")
    one.add_argument("folder", help="the snapshot's folder")
    one.add_argument("--node", required=True, metavar="URL", help="http://host:port, https://… or unix:/path/to/steelyard.sock")
    one.add_argument("--release", metavar="REF", help="which release it is; told by the folder's name where `snapshot_download` made it")
    one = some.add_parser("recalls", help="list recalls, or follow them", description="List the recalls that a node knows, the oldest first.")
    one.add_argument("--node", required=True, metavar="URL", help="http://host:port, https://… or unix:/path/to/steelyard.sock")
    one.add_argument("--follow", action="store_true", help="go on with each that arrives")
    one = some.add_parser("status", help="show a node's status", description="Show a node's status as JSON.")
    one.add_argument("--node", required=True, metavar="URL", help="http://host:port, https://… or unix:/path/to/steelyard.sock")
    return out


def verified(given: argparse.Namespace) -> None:
    report = verify(
        given.folder, given.root, evidence=given.evidence, expect=given.expect, own=given.nation, partial=given.partial,
        lease=None if given.lease is None else given.lease * DAY, witnesses=given.witnesses,
    )
    if given.json:
        return show(report.as_dict())
    print(f"{report.model}@{report.version} is what {report.nation} signed: {report.release}")
    print(f"  {report.files} files, {report.bytes} bytes{f', {len(report.missing)} lack' if report.missing else ''}; licence {report.licence}")
    print(f"  channels: {', '.join(report.channels) or 'none'}; witnessed by {', '.join(report.witnesses) or 'no pinned nation'}")
    for one in report.attestations:
        print(f"  {one['nation']}: {one['verdict']} in {one['suite']} until {one['until']}")
    for words in report.warnings:
        print(f"  warning: {words}", file=sys.stderr)


def show(value: Any) -> None:
    print(json.dumps(value), flush=True)


def run(given: argparse.Namespace) -> None:
    if given.command == "verify":
        return verified(given)
    node = Node(given.node)
    if given.command == "evidence":
        print(node.save_evidence(given.folder, given.release))
    elif given.command == "status":
        show(node.status())
    elif given.follow:
        for recall in node.recall_feed():
            show(recall)
    else:
        for recall in reversed(node.recalls()):
            show(recall)


def main(arguments: Optional[List[str]] = None) -> int:
    given = parser().parse_args(arguments)
    try:
        run(given)
    except VerifyError as error:
        if getattr(given, "json", False):
            show({"error": error.reason, "detail": str(error), **error.findings})
        print(f"error: {error}", file=sys.stderr)
        return EXITS.get(error.reason, VERIFICATION)
    except NodeError as error:
        print(f"error: {error}", file=sys.stderr)
        return NETWORK
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
