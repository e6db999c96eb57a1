"""A small issuer of OpenID Connect that behaves as it is told to: python -m issuer. Its first line says where it listens.

    GET  /.well-known/openid-configuration, /jwks, /authorize (whoever comes is signed in at once)
    POST /token     the authorization code with PKCE
    POST /mint      an ID token with the claims, algorithm and forgery that the body asks for
    POST /behave    what changes from now on: rotate, pad (keys more), delay (seconds), issuer
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import algorithms

CLIENT = "steelyard-node"


def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Keys:
    """One key of each kind, and keys of nobody."""

    def __init__(self):
        self.number = 0
        self.other = {"RS256": rsa_key(), "ES256": ec.generate_private_key(ec.SECP256R1()), "EdDSA": ed25519.Ed25519PrivateKey.generate()}
        self.rotate()

    def rotate(self):
        self.number += 1
        self.own = {"RS256": rsa_key(), "ES256": ec.generate_private_key(ec.SECP256R1()), "EdDSA": ed25519.Ed25519PrivateKey.generate()}

    def kid(self, algorithm):
        return f"{algorithm}-{self.number}"

    def public(self, pad):
        makers = {"RS256": algorithms.RSAAlgorithm, "ES256": algorithms.ECAlgorithm, "EdDSA": algorithms.OKPAlgorithm}
        keys = []
        for name, key in self.own.items():
            jwk = makers[name].to_jwk(key.public_key(), as_dict=True)
            keys.append({**jwk, "kid": self.kid(name), "use": "sig", "alg": name})
        # An encryption key and a shared secret lie there too, as with real ones.
        keys.append({**makers["RS256"].to_jwk(self.other["RS256"].public_key(), as_dict=True), "kid": "enc", "use": "enc"})
        keys.append({"kty": "oct", "kid": "shared", "k": "c2VjcmV0"})
        return keys + [{**keys[0], "kid": f"pad-{number}"} for number in range(pad)]


class State:
    def __init__(self):
        self.keys, self.codes, self.issuer = Keys(), {}, ""
        self.pad = self.delay = self.asked = 0
        self.person = {"sub": "7f3a", "preferred_username": "ada", "groups": ["readers"]}


STATE = State()


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def mint(wish):
    now = int(time.time())
    claims = {"iss": STATE.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, **STATE.person, **wish.get("claims", {})}
    claims = {name: value for name, value in claims.items() if value is not None}
    algorithm = wish.get("alg", "RS256")
    if algorithm in ("none", "HS256"):
        # By hand: no library does this to itself.
        pem = STATE.keys.own["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        head = b64(json.dumps({"alg": algorithm, "kid": wish.get("kid", STATE.keys.kid("RS256"))}).encode())
        said = f"{head}.{b64(json.dumps(claims).encode())}"
        return said + "." + (b64(hmac.new(pem, said.encode(), hashlib.sha256).digest()) if algorithm == "HS256" else "")
    key = (STATE.keys.other if wish.get("forged") else STATE.keys.own)[algorithm]
    headers = {} if wish.get("kid") == "" else {"kid": wish.get("kid", STATE.keys.kid(algorithm))}
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def do_GET(self):
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if path == "/.well-known/openid-configuration":
            base = f"http://{self.headers['host']}"
            self.say({"issuer": STATE.issuer, "jwks_uri": f"{base}/jwks", "authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/token"})
        elif path == "/jwks":
            STATE.asked += 1
            time.sleep(STATE.delay)
            self.say({"keys": STATE.keys.public(STATE.pad)})
        elif path == "/asked":
            self.say(STATE.asked)
        elif path == "/authorize":
            self.authorize({name: values[0] for name, values in query.items()})
        else:
            self.say({"error": "not_found"}, 404)

    def authorize(self, asked):
        redirect = asked.get("redirect_uri", "")
        good = (
            asked.get("response_type") == "code" and asked.get("client_id") == CLIENT and asked.get("code_challenge_method") == "S256"
            and urlsplit(redirect).hostname == "127.0.0.1" and "openid" in asked.get("scope", "").split()
        )
        if not good:
            return self.say({"error": "invalid_request"}, 400)
        code = secrets.token_urlsafe(16)
        STATE.codes[code] = asked
        self.send_response(302)
        self.send_header("location", f"{redirect}?{urlencode({'code': code, 'state': asked['state'], 'iss': STATE.issuer})}")
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self):
        data = self.body()
        if self.path == "/token":
            return self.token({name: values[0] for name, values in parse_qs(data.decode()).items()})
        wish = json.loads(data or b"{}")
        if self.path == "/mint":
            return self.say({"id_token": mint(wish)})
        if wish.pop("rotate", False):
            STATE.keys.rotate()
        for name, value in wish.items():
            assert hasattr(STATE, name), name
            setattr(STATE, name, value)
        self.say({})

    def token(self, form):
        # A code is good once, for whoever has the verifier and the same redirect.
        asked = STATE.codes.pop(form.get("code"), None)
        challenge = b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if asked is None or challenge != asked["code_challenge"] or form.get("redirect_uri") != asked["redirect_uri"] or form.get("client_id") != CLIENT:
            return self.say({"error": "invalid_grant"}, 400)
        self.say({"token_type": "Bearer", "access_token": "x", "id_token": mint({"claims": {"nonce": asked["nonce"]}})})


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    STATE.issuer = f"http://127.0.0.1:{server.server_port}"
    print(STATE.issuer, flush=True)
    server.serve_forever()


main()
