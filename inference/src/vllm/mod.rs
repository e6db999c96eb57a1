//! vLLM, for models that several GPUs share: a program of the machine's, started and watched over by the worker.
//!
//! ```text
//! worker                                     vLLM
//!   own user and network namespace, in         its own process and mount namespace in those: it can
//!   which only loopback is up                  end nothing and sees nothing of the worker's
//!   hashes the admitted files, shows them  ──► reads them in a folder that can't be written
//!   answers at the inherited listener:         answers at 127.0.0.1 of the namespace, which nobody
//!   keys, limits, recall                   ──► but the worker can reach
//! ```
//!
//! What is different from the embedded engines: vLLM opens the files itself, so that bytes are hashed before it reads them
//! and not as it does (a read lease on each file says when somebody writes, as for the others); and it compiles and starts
//! programs, so that no filter of system calls fits it: the wall `seccomp` is missing, which the operator must allow by name.

mod enclosed;
mod files;
mod loopback;
mod start;

use std::path::Path;

use registry::admitted::AdmittedFile;
use registry::serving::{EngineName, Launch, Vllm};

pub use enclosed::enclosed;
pub(crate) use files::Shown;
pub(crate) use loopback::up;
pub(crate) use start::{Enclosed, Order, start};

use crate::engine::{candle, gpu};

/// The engine's name.
pub(crate) const NAME: &str = "vllm";
/// Several GPUs: from so many on it is chosen by itself, where it is named in the settings.
const SEVERAL: usize = 2;
/// Ends of the names of files that it needs beside the weights: configuration, tokenizer and template. No code, and nothing
/// that is loaded by running it.
const NEEDED: [&str; 4] = [".json", ".jinja", ".txt", ".model"];
/// Most of them, weights included: each is a mount.
const MAX_FILES: usize = 1024;

/// Which files of a release it gets: those at its root, in safetensors.
pub(crate) fn wanted(files: &[AdmittedFile]) -> Result<Vec<&AdmittedFile>, String> {
    let weights = files.iter().filter(|file| candle::is_weights(&file.path)).count();
    if weights == 0 {
        return Err("it has no .safetensors file, and vllm is given nothing else".to_owned());
    }
    if !files.iter().any(|file| file.path == candle::CONFIG) {
        return Err(format!("it has no `{}`", candle::CONFIG));
    }
    let needed = |path: &str| NEEDED.iter().any(|end| path.ends_with(end));
    let wanted: Vec<_> = files
        .iter()
        .filter(|file| !file.path.contains('/') && (needed(&file.path) || candle::is_weights(&file.path)))
        .collect();
    if wanted.len() > MAX_FILES {
        return Err(format!("it has {} files; vllm is given {MAX_FILES} at most", wanted.len()));
    }
    Ok(wanted)
}

/// Whether vLLM serves these files, and why; else why not.
pub(crate) fn chosen(
    name: &str,
    files: &[AdmittedFile],
    asked: Option<EngineName>,
    vllm: Option<&Vllm>,
) -> Result<String, String> {
    choose(name, files, asked, vllm, gpus(Path::new("/dev")))
}

fn choose(
    name: &str,
    files: &[AdmittedFile],
    asked: Option<EngineName>,
    vllm: Option<&Vllm>,
    gpus: usize,
) -> Result<String, String> {
    let vllm = vllm
        .ok_or("no vLLM is named: set `program` under [worker.vllm] in the settings to the machine's own")?;
    wanted(files).map_err(|reason| format!("`{name}` is not for vllm: {reason}"))?;
    let shape = format!("{} x {} GPUs", vllm.tensor_parallel, vllm.pipeline_parallel);
    match asked {
        Some(EngineName::Vllm) => Ok(format!("`{}` was asked for, on {shape}", vllm.program.display())),
        Some(_) => Err("another was asked for".to_owned()),
        None if gpus < SEVERAL => Err(format!(
            "it is for machines with several GPUs, and this one has {gpus}; `--engine vllm` insists on it"
        )),
        None => Ok(format!("this machine has {gpus} GPUs; `{}` on {shape}", vllm.program.display())),
    }
}

/// The vLLM that is to serve what is launched; nothing where an embedded engine does.
pub(crate) fn for_launch(launch: &Launch) -> Result<Option<Vllm>, String> {
    let asked = launch.options.engine;
    if asked.is_none() && launch.vllm.is_none() {
        return Ok(None);
    }
    let name = launch.admitted.model().to_string();
    match (chosen(&name, launch.admitted.files(), asked, launch.vllm.as_ref()), asked) {
        (Ok(_), _) if launch.is_growing() => {
            Err(format!("vLLM reads whole files: `steelyard pull {name}` first"))
        }
        (Ok(_), _) => Ok(launch.vllm.clone()),
        (Err(reason), Some(EngineName::Vllm)) => Err(format!("`--engine vllm` was asked for, but {reason}")),
        (Err(_), _) => Ok(None),
    }
}

/// GPUs whose device nodes are in `folder`.
fn gpus(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(gpu::is_card)).count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tiny;

    pub(super) fn settings() -> Vllm {
        Vllm {
            program: "/opt/vllm/bin/vllm".into(),
            tensor_parallel: 2,
            pipeline_parallel: 1,
            ray: false,
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            read: Vec::new(),
        }
    }

    const FILES: [&str; 8] = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "modeling.py",
        "pytorch_model.bin",
        "README.md",
        "onnx/config.json",
        "vocab.txt",
    ];

    #[test]
    fn it_gets_weights_and_what_describes_them_and_no_code() {
        let admitted = tiny::admitted(&FILES);
        let paths: Vec<_> = wanted(admitted.files()).unwrap().iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]);
        assert!(
            wanted(tiny::admitted(&["config.json", "a.gguf"]).files()).unwrap_err().contains("safetensors")
        );
        assert!(wanted(tiny::admitted(&["model.safetensors"]).files()).unwrap_err().contains("config.json"));
    }

    #[test]
    fn several_gpus_choose_it_or_a_person_does() {
        let admitted = tiny::admitted(&FILES);
        let files = admitted.files();
        let vllm = settings();
        let with = |asked, vllm: Option<&Vllm>, gpus| choose("alba/tiny", files, asked, vllm, gpus);
        assert!(with(None, Some(&vllm), 2).is_ok());
        assert!(with(None, Some(&vllm), 1).unwrap_err().contains("--engine vllm"));
        assert!(with(Some(EngineName::Vllm), Some(&vllm), 0).unwrap().contains("2 x 1 GPUs"));
        assert!(with(Some(EngineName::Candle), Some(&vllm), 8).is_err());
        assert!(with(None, None, 8).unwrap_err().contains("[worker.vllm]"));
    }

    #[test]
    fn what_would_undo_the_workers_work_is_refused_in_its_settings() {
        assert!(settings().check().is_ok());
        let refused = |change: fn(&mut Vllm)| {
            let mut vllm = settings();
            change(&mut vllm);
            vllm.check().unwrap_err()
        };
        assert!(refused(|vllm| vllm.program = "vllm".into()).contains("whole paths"));
        assert!(refused(|vllm| vllm.tensor_parallel = 0).contains("between 1"));
        assert!(refused(|vllm| vllm.arguments.push("--trust-remote-code".to_owned())).contains("decides"));
        assert!(refused(|vllm| vllm.arguments.push("--served_model_name=x".to_owned())).contains("decides"));
        assert!(
            refused(|vllm| drop(vllm.environment.insert("LD_PRELOAD".to_owned(), String::new())))
                .contains("LD_PRELOAD")
        );
    }
}
