"""Runs the steps and prints the table."""

import argparse
import os
import pathlib
import sys
import tempfile

import machine
import nation
import pack
import steps
from table import Table

NO_GPU = 3


def arguments():
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, help="a steelyard built by scripts/cuda.sh")
    parser.add_argument("--cpu", action="store_true", help="tiny shapes on the CPU, to test this script")
    parser.add_argument("--only", default=",".join(steps.ALL), help="some of: " + ", ".join(steps.ALL))
    parser.add_argument("--scratch", type=pathlib.Path, help="a folder with 60 GB free [default: the system's for temporary files]")
    parser.add_argument("--pack", type=pathlib.Path, metavar="FILE", help="make an archive to carry, and end")
    return parser.parse_args()


def main():
    given = arguments()
    if given.pack:
        return pack.make(given.pack, machine.binary(given.binary))
    unknown = set(given.only.split(",")) - set(steps.ALL)
    if unknown:
        sys.exit(f"gpu-check: no such step: {', '.join(sorted(unknown))}; there are {', '.join(steps.ALL)}")
    here = machine.look(given.cpu)
    if here.gpu is None and not given.cpu:
        print(f"gpu-check: there is no GPU here: {here.why}", file=sys.stderr)
        print("gpu-check: `--cpu` runs the same steps on tiny shapes and the CPU", file=sys.stderr)
        return NO_GPU
    binary = machine.binary(given.binary)
    table = Table(here)
    with tempfile.TemporaryDirectory(prefix="steelyard-gpu-", dir=given.scratch) as scratch:
        scratch = pathlib.Path(scratch)
        home = nation.Nation(machine.placed(binary, scratch, here), scratch)
        try:
            for name in steps.ALL:
                if name in given.only.split(","):
                    print(f"--- {name}", flush=True)
                    steps.ALL[name](home, table, here)
        finally:
            home.close()
    table.show()
    return table.code()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    sys.exit(main())
