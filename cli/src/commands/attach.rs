//! What a release carries besides its folder: attachments, and a signature for other tools.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use node::api::types::{AttachRequest, Drafted};
use registry::attachment::{FOLDER, ImportRecord, Kind, MAX_SIZE, Origin};
use registry::key::Key;
use registry::oms::{self, FILE_NAME, MAX_BUNDLE, Manifest, PublicKey, SigningKey, sign_release};
use registry::statement::File;
use registry::{Model, Nation};

use crate::client::Client;
use crate::failure::{Exit, Failure};

/// What `publish` adds to a folder's files.
#[derive(Debug, Args)]
pub(super) struct Extras {
    /// Attach a document about the model, as slsa=FILE (SLSA provenance) or mlbom=FILE (CycloneDX)
    #[arg(long, value_name = "KIND=FILE", value_parser = parse_attachment)]
    attach: Vec<(Kind, PathBuf)>,
    /// Add model.sig, which `model_signing verify key` checks, signed with this ECDSA P-256 key in PEM (mode 0600)
    #[arg(long, value_name = "FILE", conflicts_with = "oms_signature")]
    oms_key: Option<PathBuf>,
    /// Refuse the folder unless this OpenSSF Model Signing bundle covers all of it; the release keeps it
    #[arg(long, value_name = "FILE", requires = "oms_public_key")]
    oms_signature: Option<PathBuf>,
    /// The public key, in PEM, by which that bundle must be signed
    #[arg(long, value_name = "FILE", requires = "oms_signature")]
    oms_public_key: Option<PathBuf>,
}

fn parse_attachment(text: &str) -> Result<(Kind, PathBuf), String> {
    let (kind, file) = text.split_once('=').ok_or("write KIND=FILE, such as slsa=provenance.json")?;
    match kind.parse().map_err(|error: registry::attachment::AttachmentError| error.to_string())? {
        kind @ (Kind::Slsa | Kind::Mlbom) if !file.is_empty() => Ok((kind, file.into())),
        Kind::Slsa | Kind::Mlbom => Err("the file is missing".to_owned()),
        kind => {
            Err(format!("`{kind}` is not attached by hand: --oms-key and `steelyard import --oms` do that"))
        }
    }
}

/// Everything read and checked that can be before the folder is read.
pub(super) struct Prepared {
    attach: Vec<AttachRequest>,
    key: Option<SigningKey>,
    imported: Option<Imported>,
}

struct Imported {
    bundle: String,
    manifest: Manifest,
    key: PublicKey,
    /// The bundle's path in the release.
    path: String,
}

impl Extras {
    pub(super) fn prepare(&self, folder: &Path) -> Result<Prepared, Failure> {
        let mut attach = Vec::new();
        for (kind, file) in &self.attach {
            let name = file.file_name().and_then(|name| name.to_str());
            let name =
                name.ok_or_else(|| Failure::usage(format!("{} has no usable name", file.display())))?;
            let content = read(file, MAX_SIZE)?;
            attach.push(AttachRequest { kind: *kind, path: format!("{FOLDER}/{name}"), content });
        }
        let key = self.oms_key.as_deref().map(SigningKey::load).transpose()?;
        let imported = match (&self.oms_signature, &self.oms_public_key) {
            (Some(signature), Some(public)) => Some(Imported::read(folder, signature, public)?),
            _ => None,
        };
        Ok(Prepared { attach, key, imported })
    }
}

impl Imported {
    fn read(folder: &Path, signature: &Path, public: &Path) -> Result<Self, Failure> {
        let key = PublicKey::load(public)?;
        let bundle = read(signature, MAX_BUNDLE as u64)?;
        let manifest = oms::verify(bundle.as_bytes(), &key)?;
        // Where it lies in the folder, it stays.
        let inside = signature.canonicalize()?;
        let inside = inside.strip_prefix(folder.canonicalize()?).ok().and_then(Path::to_str);
        let path = inside.unwrap_or(FILE_NAME).to_owned();
        Ok(Self { bundle, manifest, key, path })
    }
}

impl Prepared {
    /// Adds everything to what was drafted from the folder.
    pub(super) async fn add(
        self,
        client: &Client,
        model: &Model,
        draft: &mut Drafted,
        origin: Option<&Origin>,
        signer: Option<&Key>,
    ) -> Result<(), Failure> {
        let mut requests = Vec::new();
        if let Some(imported) = self.imported {
            requests = imported.check(&model.nation, draft)?;
        }
        if let Some(origin) = origin {
            requests.extend(provenance(origin, draft, signer)?);
        }
        requests.extend(self.attach);
        for request in requests {
            put(client, draft, request).await?;
        }
        if let Some(key) = self.key {
            let content = text(sign_release(model.name.as_str(), &draft.files, &key)?)?;
            put(client, draft, AttachRequest { kind: Kind::Oms, path: FILE_NAME.to_owned(), content })
                .await?;
        }
        draft.size = draft.files.iter().map(|file| file.size).sum();
        Ok(())
    }
}

impl Imported {
    /// Compares the folder with what was signed; the bundle and the record that the release is to carry.
    fn check(self, nation: &Nation, draft: &mut Drafted) -> Result<Vec<AttachRequest>, Failure> {
        draft.files.retain(|file| file.path != self.path);
        let files = draft.files.iter().map(|file| (file.path.as_str(), &file.sha256));
        self.manifest.compare(files).map_err(|error| {
            let failure = Failure::from(error);
            match draft.skipped.first() {
                Some(left) => failure.help(format!("`{}` was left out: {}", left.path, left.why)),
                None => {
                    failure.help("get the folder again, or sign it again and have it checked by its signer")
                }
            }
        })?;
        let mut record = ImportRecord::new(nation.clone(), &self.manifest, &self.key);
        record.bundle.clone_from(&self.path);
        Ok(vec![
            AttachRequest { kind: Kind::Oms, path: self.path, content: self.bundle },
            AttachRequest {
                kind: Kind::Import,
                path: format!("{FOLDER}/import.json"),
                content: text(record.to_json())?,
            },
        ])
    }
}

/// The record of an import and its provenance, which the release's own key signs by itself too, so that it can be shown without the
/// release. What was drafted must be what was verified on its way here.
fn provenance(origin: &Origin, draft: &Drafted, signer: Option<&Key>) -> Result<Vec<AttachRequest>, Failure> {
    let drafted: Vec<_> = draft.files.iter().map(|file| (file.path.clone(), file.sha256)).collect();
    if drafted != origin.files {
        return Err(Failure::new(
            Exit::Verification,
            "what was read is not what was verified on its way here",
        )
        .help("somebody changed the files in between; run the command again"));
    }
    let content = text(match signer {
        Some(key) => origin.signed(key)?,
        // Whoever signs the draft signs a release that holds this one's digest.
        None => origin.statement(),
    })?;
    // What was taken in may be an import of another nation's, with such files of its own.
    let free = |name: &str| {
        let path = |number: usize| match number {
            1 => format!("{FOLDER}/{name}.json"),
            more => format!("{FOLDER}/{name}-{more}.json"),
        };
        let taken = |path: &str| draft.files.iter().any(|file| file.path == path);
        // One of so many is free.
        (1..=draft.files.len() + 1).map(path).find(|path| !taken(path)).unwrap_or_default()
    };
    let record = text(origin.record())?;
    Ok(vec![
        AttachRequest { kind: Kind::Slsa, path: free("provenance"), content },
        AttachRequest { kind: Kind::Import, path: free("import"), content: record },
    ])
}

async fn put(client: &Client, draft: &mut Drafted, request: AttachRequest) -> Result<(), Failure> {
    if draft.files.iter().any(|file| file.path == request.path) {
        let message =
            format!("the folder holds `{}` already, where the {} is to be", request.path, request.kind);
        return Err(Failure::new(Exit::Busy, message).help("rename it or leave it out of the folder"));
    }
    let file: File = client.post("/v1/attachments", &request).await?;
    let at = draft.files.partition_point(|other| other.path < file.path);
    draft.files.insert(at, file);
    Ok(())
}

fn read(path: &Path, limit: u64) -> Result<String, Failure> {
    let wrong = |exit, why: String| Failure::new(exit, format!("{}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => wrong(Exit::NotFound, "there is no such file".to_owned()),
        _ => wrong(Exit::Other, error.to_string()),
    })?;
    let mut out = String::new();
    file.take(limit + 1)
        .read_to_string(&mut out)
        .map_err(|error| wrong(Exit::Verification, format!("it can't be read as JSON text: {error}")))?;
    if out.len() as u64 > limit {
        return Err(wrong(Exit::Verification, format!("it is over the limit of {limit} bytes")));
    }
    Ok(out)
}

fn text(bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| Failure::new(Exit::Other, error))
}
