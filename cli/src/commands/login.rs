//! `steelyard login`: a person's token, by signing in at the issuer that a node names.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use node::oidc::OidcError;
use node::oidc::login::{LoginError, SignIn};
use registry::Timestamp;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output;

/// Longest time that is waited for a person, in seconds: the node's nonce ends then.
const MAX_WAIT: u64 = 600;

/// Sign in at a node with your own account, and get a token for its hub interface
///
/// The node names its issuer (OpenID Connect, the setting `oidc.issuer`). The address that is shown is for your browser; what you type
/// there, the issuer alone sees. The token is made for some hours and goes to standard output alone, or into a file that only
/// you may read. `steelyard token list` and `revoke` on the node show sessions and take them back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard login https://models.alba.example > token
  steelyard login http://127.0.0.1:4800 --out ~/.cache/huggingface/token
  HF_ENDPOINT=http://127.0.0.1:4800 hf download alba/smollm2")]
pub(crate) struct Login {
    /// The node's HTTP address, as in HF_ENDPOINT
    #[arg(value_name = "URL")]
    node: String,
    /// Write the token into this file, readable by you alone, instead of showing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Seconds to wait for you to sign in
    #[arg(long, value_name = "SECONDS", default_value_t = MAX_WAIT, value_parser = clap::value_parser!(u64).range(1..=MAX_WAIT))]
    wait: u64,
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Node(problem) => (*problem).into(),
            LoginError::Exposed { .. } => Self::usage(error),
            LoginError::Fetch(error) => {
                Self::new(if error.is_passing() { Exit::Network } else { Exit::Other }, error)
            }
            LoginError::Issuer(OidcError::Issuer { .. }) | LoginError::Late(_) => {
                Self::new(Exit::Network, error)
            }
            LoginError::Refused(_) => Self::new(Exit::Policy, error),
            LoginError::Issuer(_) | LoginError::Here(_) => Self::new(Exit::Other, error),
        }
    }
}

impl Login {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let attempt = SignIn::begin(&self.node).await?;
        output::note(format!(
            "open this address in your browser, and sign in there:\n\n{}\n",
            attempt.address
        ));
        let made = attempt.finish(Duration::from_secs(self.wait)).await?;
        let ends = made.entry.expires.map(|at| human::relative(at, Timestamp::now())).unwrap_or_default();
        let (name, scope) = (&made.entry.name, made.entry.scope.as_str());
        output::note(format!("signed in: token `{name}` for `{scope}`, ends {ends}"));
        match &self.out {
            Some(file) => {
                write(file, &made.token)
                    .map_err(|error| Failure::new(Exit::Other, format!("{}: {error}", file.display())))?;
                if context.json { output::json(&made.entry) } else { Ok(()) }
            }
            None if context.json => output::json(&made),
            None => output::line(&made.token),
        }
    }
}

/// Replaces the file as a whole, so that a wider mode of one that is there is not kept.
fn write(file: &Path, token: &str) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = file.with_file_name(name);
    let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let done = opened.write_all(token.as_bytes()).and_then(|()| opened.sync_all());
    let done = done.and_then(|()| std::fs::rename(&new, file));
    if done.is_err() {
        // It holds a token that nobody wants there.
        let _ = std::fs::remove_file(&new);
    }
    done
}
