"""Document 05: the hello's bytes and its verdicts."""

from .basic import Refused, given, need, timestamp
from steelyard.core.envelope import Signed
from steelyard.core.statement import Statement
from steelyard.core.trust import Trust

NAMES = ["accepted", "not-pinned", "root-expired", "certificate-expired", "other-peer", "bad-signature", "malformed", "clock"]
VERDICT_OF = {
    "not-pinned": 1, "root-expired": 2, "certificate-expired": 3, "other-peer": 4, "bad-signature": 5, "threshold": 5, "from-the-future": 7,
    "not-active": 1,
}


def hello(request):
    data = given(request["bytes"])
    need(data[:4] == b"SYHL" and len(data) >= 12, "malformed")
    need(int.from_bytes(data[4:8], "little") == 1, "version")
    length = int.from_bytes(data[8:12], "little")
    need(1 <= length <= 65536 and len(data) == 12 + length, "length")
    return {"length": length}


def verdict(request):
    need(request["byte"] < len(NAMES), "verdict")
    return {"name": NAMES[request["byte"]]}


def verdicts(request):
    return {"admitted": request["sent"] == 0 and request["received"] == 0}


def answer(request):
    now, mine = timestamp(request["now"]), None
    for root in request["roots"]:
        signed = Signed(given(root))
        it = Statement(signed.payload)
        mine = mine or Trust(it.nation)
        mine.pin(signed, signed.digest, it.issued)
    try:
        mine.certificate(Signed(given(request["signed"])), request["peer"], now)
        code = 0
    except Refused as refused:
        code = VERDICT_OF.get(str(refused), 6)
    return {"verdict": code, "name": NAMES[code]}
