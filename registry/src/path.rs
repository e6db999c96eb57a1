//! Paths inside a release: relative, portable, unable to leave the folder that they are put in.

use std::collections::BTreeMap;

/// Longest path, in bytes (below every common file system's limit, with room for a prefix).
pub const MAX_PATH: usize = 512;
/// Longest component, in bytes: the limit of ext4, XFS, APFS and NTFS.
pub const MAX_COMPONENT: usize = 255;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 16;

/// Why a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path itself is unfit.
    #[error("path `{path}` is refused: {rule}")]
    Unfit {
        /// The path, shortened.
        path: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Two paths would be one file on some file system.
    #[error(
        "paths `{one}` and `{other}` collide: they differ only in case, or one is the other's folder; rename one"
    )]
    Collision {
        /// The first.
        one: String,
        /// The second.
        other: String,
    },
}

/// Checks one path of a release.
pub fn check(path: &str) -> Result<(), PathError> {
    let unfit = |rule| Err(PathError::Unfit { path: crate::shorten(path), rule });
    if path.is_empty() || path.len() > MAX_PATH {
        return unfit("it must be 1 to 512 bytes long");
    }
    if path.starts_with('/') {
        return unfit("it must be relative");
    }
    if path.chars().any(|c| c.is_control() || matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')) {
        return unfit("control characters and \\ : * ? \" < > | are not portable");
    }
    let mut depth = 0;
    for component in path.split('/') {
        depth += 1;
        if matches!(component, "" | "." | "..") {
            return unfit("empty, `.` and `..` components are not allowed");
        }
        if component.len() > MAX_COMPONENT {
            return unfit("a component must be at most 255 bytes long");
        }
        if component.ends_with('.') || component.ends_with(' ') || component.starts_with(' ') {
            return unfit("a component must not end in a dot or begin or end in a space");
        }
    }
    if depth > MAX_DEPTH {
        return unfit("it is nested more than 16 deep");
    }
    Ok(())
}

/// Checks all paths of a release: each by itself, and that no two collide (case-insensitively, or file against folder).
pub fn check_all<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<(), PathError> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for path in paths {
        check(path)?;
        if let Some(other) = seen.insert(path.to_lowercase(), path) {
            return Err(PathError::Collision { one: other.to_owned(), other: path.to_owned() });
        }
    }
    for (lower, path) in &seen {
        for (at, _) in lower.match_indices('/') {
            if let Some(folder) = seen.get(&lower[..at]) {
                return Err(PathError::Collision { one: (*folder).to_owned(), other: (*path).to_owned() });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traversal_and_tricks_are_refused() {
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "./a",
            "a/.",
            "a\\b",
            "C:x",
            "a\0b",
            "a\nb",
            "a/ b",
            "a.",
            "con*",
            &"a/".repeat(20),
            &"a".repeat(256),
        ] {
            assert!(check(path).is_err(), "{path:?}");
        }
        assert_eq!(check("model-00001-of-00002.safetensors"), Ok(()));
        assert_eq!(check("onnx/ö/model.onnx"), Ok(()));
    }

    #[test]
    fn collisions_are_refused() {
        assert!(check_all(["README.md", "readme.md"]).is_err());
        assert!(check_all(["a", "a/b"]).is_err());
        assert!(check_all(["a/b", "a/c", "b"]).is_ok());
    }
}
