"""A nation of one node, in a scratch folder, whose models are served by the binary that is checked."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time

# Longest that a worker may take to be ready: an 8B model is written, hashed and loaded meanwhile.
START = 1800
SETTINGS = """[p2p]
listen = ["/ip4/127.0.0.1/udp/0/quic-v1"]

[http]
listen = "127.0.0.1:0"

[worker]
listen = "127.0.0.1:0"
start_secs = 1800
"""


class Nation:
    def __init__(self, program, scratch):
        self.program = program
        self.scratch = scratch
        self.environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(scratch),
            "STEELYARD_HOME": str(scratch / "home"),
        }
        self.ok("init", "--nation", "alba")
        (scratch / "home/config.toml").write_text(SETTINGS)

    def start(self, *words, **more):
        return subprocess.Popen(
            [self.program, *words], env=self.environment, cwd=self.scratch, stdin=subprocess.DEVNULL,
            start_new_session=True, **more,
        )

    def run(self, *words):
        process = self.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = process.communicate(timeout=START)
        return process.returncode, out, err

    def ok(self, *words):
        code, out, err = self.run(*words)
        if code != 0:
            raise SystemExit(f"gpu-check: `steelyard {' '.join(map(str, words))}` failed ({code}): {err.strip()}")
        return out

    def publish(self, folder, name):
        self.ok("publish", folder, "--as", f"alba/{name}", "--version", "1.0.0", "--licence", "Apache-2.0")
        return f"alba/{name}"

    @contextlib.contextmanager
    def serving(self, model, *words):
        """A worker that answers, for as long as the block takes: what it said when it was ready."""
        log = open(self.scratch / "serve.log", "w+")
        process = self.start("--json", "serve", model, *words, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                raise SystemExit(f"gpu-check: {model} could not be served: {log.read().strip()[-2000:]}")
            yield Worker(json.loads(line))
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            log.close()

    def close(self):
        """Nothing of it runs on: each command that serves ends its worker."""


class Worker:
    def __init__(self, said):
        self.said = said
        self.address = said["address"]

    def complete(self, **body):
        connection = http.client.HTTPConnection(self.address, timeout=START)
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"gpu-check: the worker answered {answer.status}: {text[:500]!r}")
        return json.loads(text)

    def together(self, count, tokens):
        """Tokens a second of `count` requests at once, each of other text, that all take `tokens` tokens."""
        import concurrent.futures

        def one(number):
            answer = self.complete(prompt=f"Request {number}: " + "a b c " * 20, max_tokens=tokens, temperature=0)
            return answer["usage"]["completion_tokens"]

        begun = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            made = sum(pool.map(one, range(count)))
        return made / (time.monotonic() - begun)
