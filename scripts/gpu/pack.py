"""An archive to carry to a machine that has a GPU and nothing else."""

import tarfile

import machine

# What a courier takes in one piece.
LIMIT = 64 * 1024 * 1024


def make(archive, binary):
    scripts = machine.HERE.parent
    golden = scripts.parent / "inference/tests/golden"
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(binary, "steelyard/scripts/steelyard")
        packed.add(scripts / "gpu-check", "steelyard/scripts/gpu-check")
        for file in sorted((scripts / "gpu").glob("*.py")):
            packed.add(file, f"steelyard/scripts/gpu/{file.name}")
        packed.add(golden, "steelyard/inference/tests/golden")
    size = archive.stat().st_size
    print(f"{archive}: {size / 1e6:.1f} MB. There: tar xf {archive.name} && steelyard/scripts/gpu-check")
    return 0 if size < LIMIT else 1
