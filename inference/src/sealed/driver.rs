//! The files of a GPU's driver, which a worker that computes on a GPU keeps: its device nodes, and what is only read.
//!
//! Where there is no driver, or the build has no CUDA, there are none, and every wall is as high as without.

use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::gpu;

/// Folders in which the driver's and CUDA's libraries are installed, and the loader's list of them.
const LIBRARIES: [&str; 6] =
    ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/cuda", "/etc/ld.so.cache"];
/// What the driver's libraries ask of the kernel: the devices' numbers and parameters, memory nodes, and where this process's
/// own memory is.
const FACTS: [&str; 6] = [
    "/proc/driver/nvidia",
    "/proc/devices",
    "/proc/self/maps",
    "/proc/self/status",
    "/sys/bus/pci",
    "/sys/devices",
];
/// A folder beside the program with CUDA's libraries, where they are not installed. The program looks there first.
const BESIDE: &str = "cuda";

/// Files that stay within reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Driver {
    /// Device nodes, which are read, written and spoken to.
    pub(super) nodes: Vec<PathBuf>,
    /// Files and folders that are read.
    pub(super) read: Vec<PathBuf>,
}

impl Driver {
    /// What there is on this machine; nothing where no GPU will be computed on.
    pub(super) fn find() -> Self {
        if gpu::driver().is_err() {
            return Self::default();
        }
        let program = std::env::current_exe().ok();
        let beside = program.and_then(|program| Some(program.parent()?.join(BESIDE)));
        let read = LIBRARIES.iter().chain(&FACTS).map(PathBuf::from).chain(beside);
        Self { nodes: nodes(Path::new("/dev")), read: read.filter(|path| path.exists()).collect() }
    }

    /// Whether there is a GPU to keep anything for.
    pub(super) fn is_there(&self) -> bool {
        !self.nodes.is_empty()
    }
}

/// The nodes in `folder` by which a program computes: not those that switch displays, or set cards up.
fn nodes(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut nodes: Vec<_> = entries
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| matches!(name, "nvidiactl" | "nvidia-uvm") || gpu::is_card(name))
        })
        .map(|entry| entry.path())
        .collect();
    nodes.sort();
    nodes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tiny::Scratch;

    #[test]
    fn only_the_nodes_that_computing_needs_are_kept() {
        let scratch = Scratch::new();
        let names = [
            "nvidia0",
            "nvidia12",
            "nvidiactl",
            "nvidia-uvm",
            "nvidia-uvm-tools",
            "nvidia-modeset",
            "nvidia",
            "nvidia-nvswitchctl",
            "nvidia-caps",
            "null",
            "kvm",
            "sda",
            "nvidia1x",
        ];
        let paths: Vec<_> = names.iter().map(|name| scratch.file(name, b"")).collect();
        let found = nodes(paths.first().unwrap().parent().unwrap());
        let found: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(found, ["nvidia-uvm", "nvidia0", "nvidia12", "nvidiactl"]);
    }

    #[test]
    fn without_a_driver_nothing_is_kept() {
        if !Path::new("/dev/nvidiactl").exists() {
            assert_eq!(Driver::find(), Driver::default());
        }
    }
}
