"""Pulls an artifact with the stock `oras` client: python oras_pull.py HOST:PORT/NAME[:TAG|@DIGEST] FOLDER. Writes what it did as JSON.

With STEELYARD_TOKEN in the environment it logs in with that as the password.
"""

import json
import os
import sys

from oras.client import OrasClient

target, folder = sys.argv[1:]
token = os.environ.get("STEELYARD_TOKEN")
client = OrasClient(insecure=True, auth_backend="basic" if token else "token")
if token:
    client.auth.set_basic_auth("steelyard", token)
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
