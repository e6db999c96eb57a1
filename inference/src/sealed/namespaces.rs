//! Namespaces of the worker's own.

use std::fs;
use std::io;

use super::sys;

const CLONE_NEWCGROUP: u64 = 0x0200_0000;
const CLONE_NEWUTS: u64 = 0x0400_0000;
const CLONE_NEWIPC: u64 = 0x0800_0000;
const CLONE_NEWUSER: u64 = 0x1000_0000;
const CLONE_NEWNET: u64 = 0x4000_0000;

/// Enters a user namespace in which this process is itself and nobody else exists, and network, IPC, host-name and cgroup
/// namespaces that belong to it. The network has a loopback interface that is down. The listener stays where it was bound.
pub(super) fn enter() -> io::Result<String> {
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let flags = CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
    sys::unshare(flags).map_err(|error| io::Error::new(error.kind(), format!("{error}. {}", advice())))?;
    // Groups can't be changed any more, which the kernel wants before it maps one.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    Ok("user, network, ipc, uts, cgroup".to_owned())
}

/// What usually stands in the way.
fn advice() -> &'static str {
    let is = |file: &str, value: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        "User namespaces are switched off: `sysctl user.max_user_namespaces=10000` allows them"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "User namespaces are for root only: `sysctl kernel.unprivileged_userns_clone=1` allows them"
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor keeps user namespaces from programs that it has no profile for: give this program one with `userns,`, or `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
    } else {
        "A container often forbids user namespaces: run it with a seccomp profile that allows `unshare`"
    }
}
