"""What this machine has: the GPU, torch, transformers, vLLM; and the binary with its libraries beside it."""

import dataclasses
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# What the binary loads by name when it finds a driver.
LIBRARIES = ("libcublas.so", "libcublasLt.so", "libcurand.so", "libnvrtc.so", "libnvrtc-builtins.so")


@dataclasses.dataclass
class Machine:
    gpu: str | None
    why: str
    torch: object
    cpu: bool

    @property
    def device(self):
        return "cpu" if self.gpu is None or self.cpu else "cuda"

    def describe(self):
        where = "the CPU, tiny shapes: these figures say nothing of a GPU" if self.cpu else self.gpu
        versions = [f"{name} {version(name) or 'absent'}" for name in ("torch", "transformers", "vllm")]
        return f"{where}; {', '.join(versions)}"


def version(name):
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def load(name):
    """A module, or nothing where it is not installed."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def look(cpu):
    torch = load("torch")
    if not pathlib.Path("/dev/nvidiactl").exists():
        return Machine(None, "the driver's /dev/nvidiactl is not there", torch, cpu)
    if cpu:
        return Machine(None, "--cpu was asked for", torch, cpu)
    if torch is None:
        return Machine(None, "Python has no torch (STEELYARD_GPU_PYTHON names another Python)", torch, cpu)
    if not torch.cuda.is_available():
        return Machine(None, "torch finds no CUDA device", torch, cpu)
    return Machine(torch.cuda.get_device_name(0), "", torch, cpu)


def binary(given):
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    for path in [given] if given else [HERE.parent / "steelyard", cache / "steelyard/cuda/steelyard"]:
        if path.is_file():
            return path.resolve()
    sys.exit("gpu-check: there is no binary; scripts/cuda.sh builds one, `--binary` names it")


def placed(program, scratch, here):
    """A copy of the binary with CUDA's libraries in `cuda` beside it, where it looks for them first. Copies, since its worker
    may read that folder and no other."""
    own = scratch / "bin"
    own.mkdir()
    shutil.copy(program, own / "steelyard")
    if here.device == "cuda":
        (own / "cuda").mkdir()
        for library in LIBRARIES:
            found = [path for folder in folders(here.torch) for path in folder.glob(f"{library}.*")]
            for path in found[:1]:
                shutil.copy(path, own / "cuda" / path.name)
                (own / "cuda" / library).symlink_to(path.name)
    return own / "steelyard"


def folders(torch):
    """Where CUDA's libraries may be: those of torch's own packages, and the system's."""
    packages = pathlib.Path(torch.__file__).resolve().parent.parent / "nvidia"
    return [*sorted(packages.glob("*/lib")), pathlib.Path("/usr/local/cuda/lib64"), pathlib.Path("/usr/lib/x86_64-linux-gnu")]


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
