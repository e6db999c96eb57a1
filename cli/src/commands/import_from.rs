//! `steelyard import hf:…`, `hf-cache:…` and `oci:…`: what others keep becomes a release of one's own nation.

use std::path::PathBuf;

use clap::Args;
use node::fetch_http::{Client, FetchError};
use node::import::folder::{Folder, Progress};
use node::import::hub::HubModel;
use node::import::oci::Artifact;
use node::import::{Check, ImportError, Plan, cache, hub, oci};
use registry::Timestamp;
use registry::attachment::Origin;
use registry::key::read_private;
use serde::Serialize;

use super::import_oms::NewRelease;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, Cell, DIM, NAME, Table, WARN, cell, paint};
use crate::progress::Bar;

/// How a source is asked.
#[derive(Debug, Args)]
pub(super) struct Fetching {
    /// The hub to ask for hf:… [default: none, unless HF_ENDPOINT names one]
    #[arg(long, value_name = "URL", help_heading = "A hub, a cache or a registry")]
    endpoint: Option<String>,
    /// The file, readable by you alone, that holds the token to show to the hub or registry [default for hf:… HF_TOKEN_PATH]
    #[arg(long, value_name = "FILE", help_heading = "A hub, a cache or a registry")]
    token_file: Option<PathBuf>,
    /// Leave out files whose path matches: `*` stands for anything, such as '*.bin' or 'onnx/*'
    #[arg(long, value_name = "PATTERN", help_heading = "A hub, a cache or a registry")]
    exclude: Vec<String>,
    /// Show what would come, and stop
    #[arg(long, help_heading = "A hub, a cache or a registry")]
    dry_run: bool,
}

/// Where a model is taken in from.
#[derive(Debug)]
pub(super) enum Remote {
    Hub(HubModel),
    Cache(String),
    Registry(Artifact),
}

impl Remote {
    /// The source that `text` names; nothing where it is a file or a folder.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, Failure> {
        Ok(match text.split_once(':') {
            Some(("hf", rest)) => Some(Self::Hub(HubModel::parse(rest)?)),
            Some(("hf-cache", rest)) => Some(Self::Cache(rest.to_owned())),
            Some(("oci", rest)) => Some(Self::Registry(Artifact::parse(rest)?)),
            _ => None,
        })
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    format: &'a str,
    name: &'a str,
    source: &'a str,
    revision: String,
    licence: Option<&'a str>,
    size: u64,
    files: Vec<ShownFile<'a>>,
    left_out: Vec<LeftOut<'a>>,
}

#[derive(Serialize)]
struct ShownFile<'a> {
    path: &'a str,
    size: u64,
    /// `sha256:…` or `git:…`.
    hash: String,
}

#[derive(Serialize)]
struct LeftOut<'a> {
    path: &'a str,
    why: &'a str,
}

/// A path in the environment; an empty one is none.
fn named(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

impl Fetching {
    /// Whether anything of it was named.
    pub(super) fn is_named(&self) -> bool {
        self.endpoint.is_some() || self.token_file.is_some() || !self.exclude.is_empty() || self.dry_run
    }

    fn endpoint(&self) -> Result<String, Failure> {
        self.endpoint.clone().or_else(|| named("HF_ENDPOINT")).ok_or_else(|| {
            Failure::usage("no hub is named, and none is asked that nobody named")
                .help("name one with --endpoint https://… or the environment's HF_ENDPOINT")
        })
    }

    fn client(&self, endpoint: &str, default: Option<PathBuf>) -> Result<Client, Failure> {
        let client = Client::new().map_err(ImportError::from)?;
        match self.token_file.clone().or(default) {
            None => Ok(client),
            Some(path) => {
                let token = read_private(&path)?;
                Ok(client.with_token(endpoint, &token).map_err(ImportError::from)?)
            }
        }
    }

    async fn plan(&self, from: &Remote) -> Result<(Plan, Option<Client>), Failure> {
        let (plan, client) = match from {
            Remote::Hub(model) => {
                let endpoint = self.endpoint()?;
                let client = self.client(&endpoint, named("HF_TOKEN_PATH").map(PathBuf::from))?;
                (hub::plan(&client, &endpoint, model).await?, Some(client))
            }
            Remote::Registry(artifact) => {
                let client = self.client(&artifact.endpoint(), None)?;
                (oci::plan(&client, artifact).await?, Some(client))
            }
            Remote::Cache(text) => {
                let (folder, revision) = cache::parse(text);
                (cache::plan(&folder, revision)?, None)
            }
        };
        Ok((plan.narrowed(&self.exclude)?, client))
    }

    pub(super) async fn run(
        self,
        context: &Context,
        from: Remote,
        release: &NewRelease,
    ) -> Result<(), Failure> {
        // What would not be published is not fetched.
        let early = if self.dry_run { None } else { Some(release.publication(PathBuf::from("."), [])?) };
        if let Some(publication) = &early {
            publication.refuse_early(context).await?;
        }
        let bar = Bar::new(context.progress(), "asking what there is");
        let planned = self.plan(&from).await;
        drop(bar);
        let (plan, client) = planned?;
        let Some(early) = early else {
            return show(context, &plan);
        };
        let folder = Folder::open(context.home(), &plan.source)?;
        let bar = Bar::new(context.progress(), "fetching");
        let mut progress = |at: Progress| bar.bytes(at.done, at.total, &at.path);
        let files = folder.fetch(&plan, client.as_ref(), &mut progress).await;
        drop(bar);
        let files = files?;
        let source = plan.source;
        let mut publication = release.publication(folder.files(), [])?;
        publication.origin = Some(Origin {
            nation: early.model()?.nation.clone(),
            format: source.format.to_owned(),
            name: source.name,
            uri: source.uri,
            algorithm: source.algorithm.to_owned(),
            revision: source.revision,
            licence: source.licence,
            imported: Timestamp::now(),
            files,
            left_out: plan.left_out.into_iter().map(|(path, _)| path).collect(),
        });
        publication.run(context).await?;
        // The store has its own copy now; until here another run goes on with this one.
        folder.remove();
        Ok(())
    }
}

fn show(context: &Context, plan: &Plan) -> Result<(), Failure> {
    let source = &plan.source;
    let hash = |check: &Check| match check {
        Check::Sha256(digest) => format!("sha256:{digest}"),
        Check::Git(hash) => format!("git:{hash}"),
    };
    if context.json {
        return output::json(&Shown {
            format: source.format,
            name: &source.name,
            source: &source.uri,
            revision: format!("{}:{}", source.algorithm, source.revision),
            licence: source.licence.as_deref(),
            size: plan.size(),
            files: plan
                .files
                .iter()
                .map(|file| ShownFile { path: &file.path, size: file.size, hash: hash(&file.check) })
                .collect(),
            left_out: plan.left_out.iter().map(|(path, why)| LeftOut { path, why }).collect(),
        });
    }
    output::line(format!("{} of {}\n", paint(NAME.bold(), &source.name), source.uri))?;
    output::print(&output::facts(&[
        ("revision", source.revision.clone()),
        ("licence", source.licence.clone().unwrap_or_default()),
        ("would come", human::contents(plan.files.len(), plan.size(), source.format)),
    ]))?;
    output::line("")?;
    let mut table = Table::new(&["file", "size", "must be"]);
    for file in &plan.files {
        let short: String = hash(&file.check).chars().take(19).collect();
        table.row([
            file.path.as_str().into(),
            Cell::from(human::bytes(file.size)).right(),
            cell(DIM, format!("{short}…")),
        ]);
    }
    for (path, why) in &plan.left_out {
        table.row([cell(DIM, path.as_str()), cell(DIM, "left out").right(), cell(WARN, *why)]);
    }
    output::print(&table.render())
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        let exit = match &error {
            ImportError::Source { .. } | ImportError::TooMany { .. } | ImportError::Empty(_) => Exit::Usage,
            ImportError::Fetch(error) => match error {
                FetchError::Url { .. } | FetchError::Exposed { .. } | FetchError::Token => Exit::Usage,
                FetchError::Status { status: 404, .. } => Exit::NotFound,
                FetchError::Redirect { .. } | FetchError::TooLarge { .. } | FetchError::Malformed { .. } => {
                    Exit::Verification
                }
                _ => Exit::Network,
            },
            ImportError::Path(_) | ImportError::Wrong { .. } | ImportError::Artifact { .. } => {
                Exit::Verification
            }
            ImportError::Cache { .. } => Exit::NotFound,
            ImportError::Unsafe { .. } => Exit::Policy,
            ImportError::Busy => Exit::Busy,
            ImportError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Exit::NotFound,
            ImportError::Io { .. } | ImportError::Full { .. } => Exit::Other,
        };
        let unsafe_files = matches!(error, ImportError::Unsafe { .. });
        let failure = Self::new(exit, error);
        if unsafe_files {
            failure.help(
                "take the safetensors or GGUF of the same model, and leave these out with --exclude, such as --exclude '*.bin'",
            )
        } else {
            failure
        }
    }
}
