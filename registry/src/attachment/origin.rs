//! From where a release was taken in that nobody had signed in a way that is read here: a hub, a cache of one, a registry.

use data_encoding::BASE64;
use serde::Serialize;
use serde_json::json;

use crate::digest::Sha256;
use crate::envelope::{self, PAYLOAD_TYPE};
use crate::key::{KeyError, Signer};
use crate::reference::Nation;
use crate::statement::STATEMENT_TYPE;
use crate::timestamp::Timestamp;

/// What built such a release, for readers of SLSA provenance.
const BUILD_TYPE: &str = "urn:steelyard:import:v1";

/// From where a release was taken in. The nation that signs the release says so; others can ask the same source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Who took it in.
    pub nation: Nation,
    /// What kind of source: `huggingface-hub`, `huggingface-cache` or `oci`.
    pub format: String,
    /// The model's name there.
    pub name: String,
    /// Its address there.
    pub uri: String,
    /// The algorithm of `revision`: `gitCommit` or `sha256`.
    pub algorithm: String,
    /// Which of its revisions, in hexadecimal.
    pub revision: String,
    /// The licence that the source names beside the files.
    pub licence: Option<String>,
    /// When it was taken in.
    pub imported: Timestamp,
    /// The files that came, with their SHA-256.
    pub files: Vec<(String, Sha256)>,
    /// Files of the source that were left out.
    pub left_out: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    nation: &'a Nation,
    format: &'a str,
    name: &'a str,
    source: &'a str,
    revision: String,
    imported: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    licence: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    left_out: &'a [String],
}

impl Origin {
    /// The record of the import, as the release holds it.
    pub fn record(&self) -> Vec<u8> {
        let record = Record {
            nation: &self.nation,
            format: &self.format,
            name: &self.name,
            source: &self.uri,
            revision: format!("{}:{}", self.algorithm, self.revision),
            imported: self.imported,
            licence: self.licence.as_deref(),
            left_out: &self.left_out,
        };
        serde_json::to_vec_pretty(&record).unwrap_or_default()
    }

    /// The same as SLSA provenance: an in-toto statement about the files.
    pub fn statement(&self) -> Vec<u8> {
        let subject =
            |(path, digest): &(String, Sha256)| json!({ "name": path, "digest": { "sha256": digest } });
        let subjects: Vec<_> = self.files.iter().map(subject).collect();
        let statement = json!({
            "_type": STATEMENT_TYPE,
            "subject": subjects,
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": { "format": self.format, "name": self.name, "source": self.uri },
                    "resolvedDependencies": [
                        { "uri": self.uri, "digest": { self.algorithm.as_str(): self.revision } }
                    ],
                },
                "runDetails": {
                    "builder": { "id": format!("urn:steelyard:nation:{}", self.nation) },
                    "metadata": { "finishedOn": self.imported },
                },
            },
        });
        serde_json::to_vec(&statement).unwrap_or_default()
    }

    /// That statement in a DSSE envelope, signed with a key of the nation's. It is none of this program's own statements: whoever
    /// reads those refuses its predicate type.
    pub fn signed(&self, signer: &dyn Signer) -> Result<Vec<u8>, KeyError> {
        let payload = self.statement();
        let signature = signer.try_sign(&envelope::pae(&payload))?;
        let envelope = json!({
            "payload": BASE64.encode(&payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{ "keyid": signer.id(), "sig": BASE64.encode(&signature) }],
        });
        Ok(serde_json::to_vec(&envelope).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Kind, Summary, describe};
    use super::*;
    use crate::key::SecretKey;

    #[test]
    fn both_forms_are_read_as_attachments() {
        let origin = Origin {
            nation: "alba".parse().unwrap(),
            format: "huggingface-hub".to_owned(),
            name: "org/name".to_owned(),
            uri: "https://hub.example/org/name".to_owned(),
            algorithm: "gitCommit".to_owned(),
            revision: "0".repeat(40),
            licence: None,
            imported: Timestamp::from_unix(0),
            files: vec![("a".to_owned(), Sha256::from_bytes([1; 32]))],
            left_out: vec!["b".to_owned()],
        };
        let Summary::Import { nation, format, signer, name } =
            describe(Kind::Import, &origin.record(), None).unwrap()
        else {
            unreachable!()
        };
        assert_eq!(
            (nation.as_str(), format.as_str(), name.as_str()),
            ("alba", "huggingface-hub", "org/name")
        );
        assert_eq!(signer, "", "nobody had signed it");
        let said = describe(Kind::Slsa, &origin.statement(), None).unwrap();
        assert!(matches!(said, Summary::Slsa { materials: 1, subjects: 1, .. }), "{said:?}");
        let key = SecretKey::generate().unwrap();
        let signed = origin.signed(&key).unwrap();
        assert_eq!(describe(Kind::Slsa, &signed, None).unwrap(), said);
        // It can't be taken for a statement that decides anything.
        assert!(crate::envelope::Signed::parse(&signed).and_then(|it| Ok(it.peek()?)).is_err());
    }
}
