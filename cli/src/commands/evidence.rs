//! `steelyard evidence`: proofs that a log lied.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use node::api::types::{EvidenceEntry, Examined};
use node::nation_file::NationFile;
use registry::log::checkpoint::note_keys;
use registry::log::evidence::{Evidence as Proof, MAX_EVIDENCE};
use registry::statement::RoleName;

use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, BAD, DIM, NAME, Table, cell, paint};

/// List and verify proofs that a nation's log lied
#[derive(Debug, Args)]
#[command(
    long_about = "List and verify proofs that a nation's log lied.\n\nA log that shows one thing to one ally and another to the next has \
signed both. Two such checkpoints, with a proof that they can't both be true, convict it before everybody who has that nation's \
root: nobody else's word is needed."
)]
pub(crate) struct Evidence {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Ls(Ls),
    Show(Show),
}

/// List the evidence that this node holds
///
/// Nothing more of such a nation's log is accepted or cosigned here until a person decides: speak with its people, and
/// suspend or remove the nation.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard evidence ls")]
struct Ls {}

/// Verify evidence and say who lied, and how
///
/// Needs no network. The keys are those of the nation as this node pinned it, or those of a nation file given with
/// --nation-file, for whoever has no node. Ends with exit code 4 when the lie is proved, with 2 when nothing is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard evidence show ~/.local/share/steelyard/store/evidence/alba-7-1f2e3d4c.json
  steelyard evidence show alba.json --nation-file nations/alba.json")]
struct Show {
    /// The file, or a name that `steelyard evidence ls` shows
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Take the keys from this nation file rather than from the node; compare its fingerprint yourself
    #[arg(long, value_name = "FILE")]
    nation_file: Option<PathBuf>,
}

impl Evidence {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.action {
            Action::Ls(_) => list(context).await,
            Action::Show(show) => show.run(context).await,
        }
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let client = Client::open(context, Need::Folder).await?;
    let found = client.get::<Vec<EvidenceEntry>>("/v1/log/evidence").await;
    client.close().await;
    let found = found?;
    if context.json {
        return output::json(&found);
    }
    if found.is_empty() {
        return output::line("No log was caught lying.");
    }
    let mut table = Table::new(&["against", "what it proves", "file"]);
    for entry in &found {
        table.row([
            cell(NAME, entry.nation.to_string()),
            entry.summary.as_str().into(),
            cell(DIM, entry.path.as_str()),
        ]);
    }
    output::print(&table.render())
}

impl Show {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (proof, found) = match &self.nation_file {
            Some(path) => {
                let proof = parse(&read(&self.file)?)?;
                let found = by_file(&proof, path)?;
                (proof, found)
            }
            None => self.by_node(context).await?,
        };
        if context.json {
            output::json(&found)?;
        } else {
            report(&proof, &found)?;
        }
        let failure = Failure::new(
            Exit::Verification,
            format!("proved: the log of `{}` lied about its first {} entries", found.nation, found.size),
        )
        .help("speak with its people; nothing more of its log is accepted by nodes that hold this");
        Err(if context.json { failure.reported() } else { failure })
    }

    async fn by_node(&self, context: &Context) -> Result<(Proof, Examined), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let examined = async {
            let json = if self.file.exists() {
                read(&self.file)?
            } else {
                let kept: Vec<EvidenceEntry> = client.get("/v1/log/evidence").await?;
                match kept.into_iter().find(|entry| entry.name == self.file.to_string_lossy()) {
                    Some(entry) => read(&PathBuf::from(entry.path))?,
                    None => read(&self.file)?,
                }
            };
            let proof = parse(&json)?;
            let found: Examined = client.post_raw("/v1/log/evidence", json).await?;
            Ok((proof, found))
        }
        .await;
        client.close().await;
        examined
    }
}

/// Reads a file, bounded.
fn read(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Other };
        Failure::new(exit, format!("{}: {error}", path.display()))
            .help("name a file of evidence; `steelyard evidence ls` lists those that this node holds")
    };
    let mut json = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_EVIDENCE as u64 + 1).read_to_end(&mut json).map_err(failed)?;
    Ok(json)
}

fn parse(json: &[u8]) -> Result<Proof, Failure> {
    Proof::parse(json).map_err(Failure::usage)
}

/// Verifies by the keys of a nation file alone.
fn by_file(proof: &Proof, path: &std::path::Path) -> Result<Examined, Failure> {
    let file = NationFile::load(path)?;
    let root = file.claimed_root()?;
    if root.nation != proof.nation {
        return Err(Failure::usage(format!(
            "{} is the file of `{}`, and the evidence is against `{}`",
            path.display(),
            root.nation,
            proof.nation
        )));
    }
    let fork = proof.verify(&note_keys(&root, RoleName::Log)).map_err(Failure::usage)?;
    Ok(Examined::from(fork))
}

fn report(proof: &Proof, found: &Examined) -> Result<(), Failure> {
    output::line(format!(
        "{} The log of {} signed two things that can't both be true.\n",
        output::mark(false),
        paint(NAME.bold(), &found.nation)
    ))?;
    output::print(&output::facts(&[
        ("its first entries", found.size.to_string()),
        ("have the root", found.one.clone()),
        ("or the root", paint(BAD, &found.other)),
    ]))?;
    for (name, note) in [("One checkpoint", &proof.smaller), ("The other", &proof.larger)] {
        output::print(&format!("\n{name}, as the log signed it:\n{}", indent(note)))?;
    }
    Ok(())
}

/// What came from outside, without anything that a terminal would obey.
fn indent(note: &str) -> String {
    let plain = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    note.lines().map(|line| format!("  {}\n", paint(DIM, plain(line)))).collect()
}
