//! `steelyard publish --staged`: a person looks at what was pushed, and signs it.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::str::FromStr;

use node::api::types::{ReviewFile, ReviewRequest, Reviewed, Staged, StagedCommit, StagedFolder};
use registry::{Model, Timestamp};

use super::publish::{Publish, tell};
use crate::ask;
use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, BAD, Cell, DIM, GOOD, NAME, Table, WARN, cell, paint};

/// The branch that is meant when none is named.
pub(super) const MAIN: &str = "main";
/// Most files of one kind that are listed; the rest is counted.
const SHOWN: usize = 40;

/// A branch of what is staged: `nation/name` or `nation/name@branch`.
#[derive(Debug, Clone)]
pub(super) struct StagedBranch {
    pub(super) model: Model,
    pub(super) branch: String,
}

impl FromStr for StagedBranch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (model, branch) = text.split_once('@').unwrap_or((text, MAIN));
        let model: Model =
            model.parse().map_err(|error: registry::reference::ReferenceError| error.to_string())?;
        if branch.is_empty() {
            return Err("a branch has a name".to_owned());
        }
        Ok(Self { model, branch: branch.to_owned() })
    }
}

/// Publishes a branch, when a person says yes.
pub(super) async fn publish(
    publish: &Publish,
    staged: &StagedBranch,
    context: &Context,
) -> Result<(), Failure> {
    let client = Client::open(context, Need::Folder).await?;
    let done = with(publish, staged, context, &client).await;
    client.close().await;
    done
}

async fn with(
    publish: &Publish,
    staged: &StagedBranch,
    context: &Context,
    client: &Client,
) -> Result<(), Failure> {
    publish.refuse_other_nation(client).await?;
    publish.refuse_taken(client).await?;
    let StagedBranch { model, branch } = staged;
    let channel = publish.channel()?.to_string();
    let request = ReviewRequest { model: model.clone(), branch: branch.clone(), channel };
    let reviewed: Reviewed = match client.post("/v1/staged/review", &request).await {
        Err(failure) if failure.exit == Exit::NotFound => return Err(missing(client, failure).await),
        reviewed => reviewed?,
    };
    if !context.json {
        show(&reviewed);
    }
    let review = &reviewed.review;
    if review.added.is_empty() && review.changed.is_empty() && review.removed.is_empty() {
        return Err(
            Failure::new(Exit::Busy, "nothing changed since the last release").help("push something first")
        );
    }
    if !publish.yes() {
        confirm().await?;
    }
    let at =
        StagedCommit { model: model.clone(), branch: branch.clone(), commit: review.staged.commit.clone() };
    let out: StagedFolder = client.post("/v1/staged/checkout", &at).await?;
    let (published, draft) = publish.publish(context, client, Path::new(&out.folder)).await?;
    if published.draft.is_none() {
        // What was signed is what was looked at, whatever was pushed meanwhile; that stays staged.
        let cleared: Result<serde_json::Value, Failure> = client.post("/v1/staged/clear", &at).await;
        match cleared {
            Ok(_) => {}
            Err(failure) if failure.exit == Exit::Busy => {
                output::warn(
                    "somebody pushed to the branch meanwhile: it stays staged, and holds what was published too",
                );
            }
            Err(failure) => {
                output::warn(format!("published, but the branch could not be cleared: {failure}"))
            }
        }
    }
    tell(context, &published, &draft)
}

/// What is staged, for who named something else.
async fn missing(client: &Client, failure: Failure) -> Failure {
    let all: Result<Vec<Staged>, Failure> = client.get("/v1/staged").await;
    let names: Vec<String> =
        all.into_iter().flatten().map(|it| format!("{}@{}", it.model, it.branch)).collect();
    match names.is_empty() {
        true => failure.help("nothing is staged; push with HF_ENDPOINT set to this node (docs/hub.md)"),
        false => failure.help(format!("staged are: {}", names.join(", "))),
    }
}

/// The difference, on standard error: it is no result, and may be asked about.
fn show(reviewed: &Reviewed) {
    let Reviewed { review, version, .. } = reviewed;
    let Staged { model, branch, commit, title, by, moved, .. } = &review.staged;
    let against = match version {
        Some(version) => format!("against {model}@{version}"),
        None => "the first release".to_owned(),
    };
    output::note(format!("{} {}", paint(NAME.bold(), format!("{model}@{branch}")), paint(DIM, against)));
    let when = human::relative(*moved, Timestamp::now());
    output::note(format!(
        "{} \u{201c}{title}\u{201d} by {by}, {when}\n",
        paint(DIM, commit.get(..12).unwrap_or(commit))
    ));
    let mut table = Table::new(&["", "file", "size"]);
    for (style, sign, files) in
        [(GOOD, "+", &review.added), (WARN, "~", &review.changed), (BAD, "-", &review.removed)]
    {
        for ReviewFile { path, size, before } in files.iter().take(SHOWN) {
            let size = match before {
                Some(before) => format!("{} -> {}", human::bytes(*before), human::bytes(*size)),
                None => human::bytes(*size),
            };
            table.row([cell(style, sign), path.as_str().into(), Cell::from(size).right()]);
        }
        if files.len() > SHOWN {
            let more = format!("and {} more", files.len() - SHOWN);
            table.row([cell(style, sign), cell(DIM, more), "".into()]);
        }
    }
    let sum = |files: &[ReviewFile]| files.iter().map(|file| file.size).sum::<u64>();
    let mut total = String::new();
    let _ = write!(
        total,
        "{} added ({}), {} changed ({}), {} removed ({}), {} as before",
        review.added.len(),
        human::bytes(sum(&review.added)),
        review.changed.len(),
        human::bytes(sum(&review.changed)),
        review.removed.len(),
        human::bytes(sum(&review.removed)),
        review.same
    );
    output::note(format!("{}\n{total}", table.render()));
    if let [first, rest @ ..] = review.left_out.as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        output::note(paint(DIM, format!("left out, since its name begins with a dot: {first}{more}")));
    }
}

async fn confirm() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::usage("what is staged is published when a person looked at it and says yes")
            .help("say it with --yes"));
    }
    let _ = write!(anstream::stderr().lock(), "Sign and publish this? Type yes to go on: ");
    let answer = ask::line().await?.unwrap_or_default();
    if answer.trim() == "yes" {
        return Ok(());
    }
    Err(Failure::new(Exit::Other, "not confirmed; nothing was published"))
}
