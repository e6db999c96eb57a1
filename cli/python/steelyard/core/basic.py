"""Document 01 section 1 and document 02: digests, names, times, JSON, base64."""

import base64
import binascii
import datetime
import json
import re

from blake3 import blake3

class Refused(Exception):
    """The input breaks a rule; the text is a code of our own."""


def need(condition, code):
    if not condition:
        raise Refused(code)


def digest_of(data):
    return "b3:" + blake3(data).hexdigest()


def is_hex(text, digits=64):
    return isinstance(text, str) and re.fullmatch("[0-9a-f]{%d}" % digits, text) is not None


def is_digest(text):
    return isinstance(text, str) and text.startswith("b3:") and is_hex(text[3:])


PLAIN = "[A-Za-z0-9]"
NAMES = {
    "nation": (r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", 32),
    "model-name": (rf"{PLAIN}([A-Za-z0-9_.-]*{PLAIN})?", 96),
    "channel": (rf"{PLAIN}([A-Za-z0-9_.-]*{PLAIN})?", 64),
    "version": (rf"{PLAIN}([A-Za-z0-9_.+-]*{PLAIN})?", 64),
}


def is_name(what, text):
    pattern, longest = NAMES[what]
    return isinstance(text, str) and len(text) <= longest and ".." not in text and re.fullmatch(pattern, text) is not None


def is_model(text):
    if not isinstance(text, str) or text.count("/") != 1:
        return False
    nation, name = text.split("/")
    return is_name("nation", nation) and is_name("model-name", name)


def reference(text):
    """The canonical form of a reference."""
    if text.startswith("b3:"):
        need(is_digest(text), "name")
        return text
    for separator, what in (("@", "version"), (":", "channel")):
        if separator in text:
            model, rest = text.split(separator, 1)
            need(is_model(model) and is_name(what, rest), "name")
            return text
    need(is_model(text), "name")
    return text + ":stable"


def timestamp(text):
    """Seconds since 1970."""
    need(isinstance(text, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", text), "time")
    try:
        at = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        raise Refused("time") from None
    need(text[17:19] <= "59", "time")
    return int(at.timestamp())


def time_text(seconds):
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


def unbase64(text):
    """Canonical base64 of RFC 4648 section 4."""
    need(isinstance(text, str), "base64")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Refused("base64") from None
    need(base64.b64encode(data).decode() == text, "base64")
    return data


def once(pairs):
    out = {}
    for key, value in pairs:
        need(key not in out, "twice")
        out[key] = value
    return out


def no_constant(_):
    raise Refused("json")


def read_json(data):
    """Strict JSON: UTF-8, nothing twice, nothing behind."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_constant=no_constant)
    except (ValueError, RecursionError):
        raise Refused("json") from None


def is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)
