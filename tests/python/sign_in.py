"""Signs in at `oidc_provider_mock` as a program with a secret does, since that provider knows no other: python sign_in.py URL CLIENT NONCE SUB.
Writes the ID token."""

import json
import sys
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, build_opener

url, client, nonce, sub = sys.argv[1:]
redirect = "http://127.0.0.1:1/callback"


class Stay(HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def post(path, form):
    return build_opener(Stay).open(f"{url}{path}", urlencode(form).encode())


query = urlencode({"response_type": "code", "client_id": client, "redirect_uri": redirect, "scope": "openid profile", "state": "s", "nonce": nonce})
try:
    post(f"/oauth2/authorize?{query}", {"sub": sub})
    sys.exit("nobody was sent back")
except HTTPError as answer:
    assert answer.code == 302, answer.code
    code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "client_id": client, "client_secret": "any"}
print(json.load(post("/oauth2/token", form))["id_token"])
