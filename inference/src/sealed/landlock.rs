//! Landlock: what may be opened is the weights, through the descriptors that were handed in, for reading.

use std::io;
use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::driver::Driver;

/// The newest rights that this program knows of (Linux 6.15); an older kernel enforces those that it has.
const ABI_KNOWN: ABI = ABI::V7;

/// Restricts this thread and all that it makes.
pub(super) fn apply(weights: &[BorrowedFd<'_>], driver: &Driver) -> io::Result<String> {
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
        devices(ruleset, driver)?.restrict_self()
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
    let mut detail =
        format!("ABI {effective_abi:?}: {kept}; descriptors of files that may be read: {}", weights.len());
    if driver.is_there() {
        detail += &format!("; nodes of the GPU's driver: {}", driver.nodes.len());
    }
    Ok(detail)
}

/// The driver's device nodes, and what its libraries read: nothing where there is no driver.
fn devices(ruleset: RulesetCreated, driver: &Driver) -> Result<RulesetCreated, RulesetError> {
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    ruleset
        .add_rules(path_beneath_rules(&driver.nodes, device))?
        .add_rules(path_beneath_rules(&driver.read, read))
}
