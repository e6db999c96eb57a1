"""Pulls an artifact with the stock `oras` client: python oras_pull.py HOST:PORT/NAME[:TAG|@DIGEST] FOLDER. Writes what it did as JSON."""

import json
import sys

from oras.client import OrasClient

target, folder = sys.argv[1:]
client = OrasClient(insecure=True)
container = client.get_container(target)
print(
    json.dumps(
        {
            "tags": client.get_tags(target),
            "manifest": client.get_manifest(target),
            "files": client.pull(target=target, outdir=folder),
            "name": container.api_prefix,
        }
    )
)
