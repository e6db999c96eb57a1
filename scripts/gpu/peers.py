"""Other programs on the same weights and the same device: transformers with torch, and vLLM where it is installed."""

import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import machine
from nation import START, Worker

# Each round of the bus moves so much, and the best of so many counts.
MOVED = {"cuda": 2 << 30, "cpu": 64 << 20}
ROUNDS = 5


def logits(folder, prompt, answer, here):
    """The logits that each token of `answer` was chosen from, computed in F32; nothing where transformers is absent."""
    transformers = machine.load("transformers")
    torch = here.torch
    if transformers is None or torch is None:
        return None
    torch.backends.cuda.matmul.allow_tf32 = False
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model = model.to(here.device).eval()
    with torch.no_grad():
        rows = model(torch.tensor([[*prompt, *answer]], device=here.device)).logits[0].float()
    from_here = len(prompt) - 1
    return rows[from_here : from_here + len(answer)].tolist()


def bus(here):
    """Bytes a second from page-locked memory to the device, or from memory to memory where there is none."""
    torch = here.torch
    if torch is None:
        return None
    size = MOVED[here.device]
    source = torch.empty(size, dtype=torch.uint8, pin_memory=here.device == "cuda")
    target = torch.empty(size, dtype=torch.uint8, device=here.device)
    best = 0.0
    for _ in range(ROUNDS):
        begun = time.monotonic()
        target.copy_(source, non_blocking=True)
        if here.device == "cuda":
            torch.cuda.synchronize()
        best = max(best, size / (time.monotonic() - begun))
    return best


def best(folder, here):
    """The fastest peer that there is."""
    if machine.load("vllm") is not None and here.device == "cuda":
        return Vllm(folder)
    if machine.load("transformers") is not None and here.torch is not None:
        return Transformers(folder, here)
    return None


class Transformers:
    name = "transformers"

    def __init__(self, folder, here):
        self.folder, self.here = folder, here

    def __enter__(self):
        transformers, torch = machine.load("transformers"), self.here.torch
        # In the weights' own format, which is what people run.
        model = transformers.AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.bfloat16)
        self.model = model.to(self.here.device).eval()
        return self

    def __exit__(self, *_):
        del self.model
        if self.here.device == "cuda":
            self.here.torch.cuda.empty_cache()

    def together(self, count, tokens):
        torch = self.here.torch
        prompts = torch.randint(0, 255, (count, 130), device=self.here.device)
        begun = time.monotonic()
        with torch.no_grad():
            self.model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=tokens, min_new_tokens=tokens,
                                do_sample=False, pad_token_id=0)
        if self.here.device == "cuda":
            torch.cuda.synchronize()
        return count * tokens / (time.monotonic() - begun)


class Vllm:
    name = "vllm"
    PORT = 18234

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        program = pathlib.Path(sys.executable).parent / "vllm"
        words = [program, "serve", self.folder, "--served-model-name", "shaped", "--host", "127.0.0.1", "--port",
                 str(self.PORT), "--max-model-len", "2048"]
        self.log = open(self.folder.parent / "vllm.log", "w")
        self.process = subprocess.Popen(words, stdout=self.log, stderr=self.log, start_new_session=True)
        begun = time.monotonic()
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() - begun > START:
                self.__exit__()
                raise SystemExit("gpu-check: vllm did not start; its log is above the scratch folder's end")
            time.sleep(1)
        return self

    def ready(self):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.PORT, timeout=2)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()

    def together(self, count, tokens):
        return Asked(f"127.0.0.1:{self.PORT}").together(count, tokens)


class Asked(Worker):
    def __init__(self, address):
        super().__init__({"address": address})

    def complete(self, **body):
        return super().complete(model="shaped", **body, ignore_eos=True)
