//! Puts the specification's test vectors together as one file, so that `steelyard conformance` needs nothing beside it.

use std::fs;
use std::io::{Error, Write};
use std::path::{Path, PathBuf};

fn main() -> Result<(), Error> {
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        // Where it looks for CUDA's libraries, which it loads by name when there is a driver: beside itself, and where the
        // toolkit is installed. The workers have no environment that could say so.
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/cuda:/usr/local/cuda/lib64");
    }
    let vectors = Path::new("../specs/vectors");
    println!("cargo::rerun-if-changed={}", vectors.display());
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| Error::other("cargo sets OUT_DIR"))?;
    // Under another name until it is whole, so that a build that was broken off leaves no half of it.
    let (made, unfinished) =
        (PathBuf::from(&out).join("vectors.jsonl"), PathBuf::from(&out).join("vectors.new"));
    let _ = fs::remove_file(&unfinished);
    let mut all = fs::File::create(&unfinished)?;
    for folder in sorted(vectors)?.into_iter().filter(|path| path.is_dir()) {
        // Also when a file is added: a folder's own time changes then.
        println!("cargo::rerun-if-changed={}", folder.display());
        for file in sorted(&folder)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "json"))
        {
            let name = file.strip_prefix(vectors).map_err(Error::other)?;
            // One line a vector: JSON texts hold no line feeds but as white space.
            let text = fs::read_to_string(&file)?;
            let line: Vec<&str> = text.lines().map(str::trim).collect();
            writeln!(all, "{}\t{}", name.display(), line.join(""))?;
        }
    }
    all.sync_all()?;
    fs::rename(unfinished, made)
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, Error>>()?;
    paths.sort();
    Ok(paths)
}
