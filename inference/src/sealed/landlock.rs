//! Landlock: what may be opened is the weights, through the descriptors that were handed in, for reading.

use std::io;
use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};

/// The newest rights that this program knows of (Linux 6.15); an older kernel enforces those that it has.
const ABI_KNOWN: ABI = ABI::V7;

/// Restricts this thread and all that it makes.
pub(super) fn apply(weights: &[BorrowedFd<'_>]) -> io::Result<String> {
    let restrict = || {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI_KNOWN))?
            .handle_access(AccessNet::from_all(ABI_KNOWN))?
            .scope(Scope::from_all(ABI_KNOWN))?
            .create()?;
        for file in weights {
            ruleset = ruleset.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
        }
        devices(ruleset)?.restrict_self()
    };
    let status = restrict().map_err(io::Error::other)?;
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
        return Err(io::Error::other(
            "it is not built in or not switched on (`lsm=` on the kernel's command line lists what is)",
        ));
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(io::Error::other("the kernel enforces none of it"));
    }
    let kept = match effective_abi {
        ABI::V1 | ABI::V2 | ABI::V3 => "files",
        ABI::V4 | ABI::V5 => "files, TCP",
        _ => "files, TCP, signals, abstract sockets",
    };
    Ok(format!("ABI {effective_abi:?}: {kept}; descriptors of files that may be read: {}", weights.len()))
}

#[cfg(not(feature = "cuda"))]
fn devices(ruleset: landlock::RulesetCreated) -> Result<landlock::RulesetCreated, landlock::RulesetError> {
    Ok(ruleset)
}

/// The driver's device nodes, and what its libraries are loaded from.
#[cfg(feature = "cuda")]
fn devices(ruleset: landlock::RulesetCreated) -> Result<landlock::RulesetCreated, landlock::RulesetError> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let nodes = entries.map(|entry| entry.path()).filter(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("nvidia"))
    });
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev | AccessFs::ReadDir;
    let library = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute;
    let libraries = ["/usr/lib", "/usr/local/cuda", "/lib", "/lib64", "/etc/ld.so.cache", "/proc", "/sys"];
    ruleset
        .add_rules(landlock::path_beneath_rules(nodes, device))?
        .add_rules(landlock::path_beneath_rules(libraries, library))
}
