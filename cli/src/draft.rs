//! Drafts: statements on their way from signer to signer, in a file that needs no node and no network.
//!
//! ```text
//! {"format": "steelyard-draft-v1",
//!  "statements": [{"payload": "<base64 of the payload>", "envelopes": [<DSSE envelopes so far>]}]}
//! ```
//!
//! A file of DSSE envelopes, such as `root.json`, is read too. What is signed is the payload as it stands in the file.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use data_encoding::BASE64;
use registry::Signed;
use registry::envelope::MAX_SIGNED;
use registry::key::Signer;
use registry::statement::Statement;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::failure::{Exit, Failure};

/// What the file says it is.
const FORMAT: &str = "steelyard-draft-v1";
/// Most statements of one draft: what one command makes, and room for more.
const MAX_STATEMENTS: usize = 16;

#[derive(Serialize, Deserialize)]
struct Wire {
    format: String,
    statements: Vec<WirePart>,
}

#[derive(Serialize, Deserialize)]
struct WirePart {
    payload: String,
    #[serde(default)]
    envelopes: Vec<Box<RawValue>>,
}

/// One statement of a draft.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    payload: Vec<u8>,
    /// What the payload says.
    pub(crate) statement: Statement,
    /// The envelopes so far.
    pub(crate) signed: Option<Signed>,
}

impl Part {
    pub(crate) fn new(statement: Statement) -> Result<Self, Failure> {
        statement.check().map_err(Failure::usage)?;
        Ok(Self { payload: statement.to_payload(), statement, signed: None })
    }

    pub(crate) fn of(signed: Signed) -> Result<Self, Failure> {
        let statement = signed.peek().map_err(registry::envelope::EnvelopeError::from)?;
        Ok(Self { payload: signed.payload().to_vec(), statement, signed: Some(signed) })
    }

    /// The statement's name, however many signed it.
    pub(crate) fn digest(&self) -> registry::Digest {
        registry::Digest::of(&self.payload)
    }

    /// Adds an envelope; whether the key had not signed yet.
    pub(crate) fn sign(&mut self, signer: &dyn Signer) -> Result<bool, Failure> {
        match &mut self.signed {
            Some(signed) => Ok(signed.cosign_by(signer)?),
            None => {
                self.signed = Some(Signed::over(&self.payload, signer)?);
                Ok(true)
            }
        }
    }
}

/// Statements on their way from signer to signer.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) parts: Vec<Part>,
}

impl Draft {
    pub(crate) fn new(statements: Vec<Statement>) -> Result<Self, Failure> {
        Ok(Self { parts: statements.into_iter().map(Part::new).collect::<Result<_, _>>()? })
    }

    /// Reads a draft, or a file of envelopes; bounded.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut text = Vec::new();
        let read =
            fs::File::open(path).and_then(|file| file.take(MAX_SIGNED as u64 + 1).read_to_end(&mut text));
        read.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Failure::new(Exit::NotFound, named(&error)),
            _ => Failure::new(Exit::Other, named(&error)),
        })?;
        Self::parse(&text).map_err(|mut failure| {
            failure.problem.detail = named(&failure.problem.detail);
            failure
        })
    }

    fn parse(text: &[u8]) -> Result<Self, Failure> {
        let refuse = |why: String| Failure::new(Exit::Verification, why);
        if text.len() > MAX_SIGNED {
            return Err(refuse(format!("over {MAX_SIGNED} bytes: this is no draft")));
        }
        let Ok(wire) = serde_json::from_slice::<Wire>(text) else {
            return Ok(Self { parts: vec![Part::of(Signed::parse(text)?)?] });
        };
        if wire.format != FORMAT || wire.statements.is_empty() || wire.statements.len() > MAX_STATEMENTS {
            return Err(refuse(format!("a draft is `{FORMAT}` and has 1 to {MAX_STATEMENTS} statements")));
        }
        let mut parts = Vec::new();
        for part in wire.statements {
            let payload =
                BASE64.decode(part.payload.as_bytes()).map_err(|error| refuse(error.to_string()))?;
            let statement = Statement::parse(&payload).map_err(registry::envelope::EnvelopeError::from)?;
            let signed = match part.envelopes.as_slice() {
                [] => None,
                envelopes => Some(Signed::parse(
                    serde_json::to_string(envelopes).map_err(|error| refuse(error.to_string()))?.as_bytes(),
                )?),
            };
            if signed.as_ref().is_some_and(|signed| signed.payload()[..] != payload[..]) {
                return Err(refuse("its envelopes are over another payload".to_owned()));
            }
            parts.push(Part { payload, statement, signed });
        }
        Ok(Self { parts })
    }

    fn text(&self) -> Result<Vec<u8>, Failure> {
        let part = |part: &Part| -> Result<WirePart, serde_json::Error> {
            let envelopes = match &part.signed {
                Some(signed) => serde_json::from_slice(&signed.to_json())?,
                None => Vec::new(),
            };
            Ok(WirePart { payload: BASE64.encode(&part.payload), envelopes })
        };
        let statements = self.parts.iter().map(part).collect::<Result<_, _>>();
        let wire = Wire { format: FORMAT.to_owned(), statements: statements.map_err(anyhow::Error::from)? };
        let mut text = serde_json::to_vec_pretty(&wire).map_err(anyhow::Error::from)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Writes a new file; an existing one is never replaced.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            let exit =
                if error.kind() == std::io::ErrorKind::AlreadyExists { Exit::Busy } else { Exit::Other };
            Failure::new(exit, format!("{}: {error}", path.display()))
        };
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map_err(failed)?;
        file.write_all(&self.text()?).and_then(|()| file.sync_all()).map_err(failed)
    }

    /// Puts the file in the place of the one that it was read from, in one step.
    pub(crate) fn replace(&self, path: &Path) -> Result<(), Failure> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let beside = path.with_file_name(name);
        self.save(&beside)?;
        Ok(fs::rename(&beside, path)?)
    }
}
