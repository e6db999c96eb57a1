//! What a program does with the client of nodes. `docs/clients.md` shows this file.

use std::collections::BTreeSet;
use std::path::Path;

use node::client::snapshot::{self, Demands, Report};
use node::client::{Client, ClientError};
use registry::Digest;

/// Verifies what lies in `folder`, which should be `model`, by the fingerprint that its nation's people told.
pub async fn check(
    node: &str,
    model: &str,
    folder: &Path,
    root: Digest,
) -> Result<Report, Box<dyn std::error::Error>> {
    let client = Client::at(node)?;
    let release = client.resolve(model).await?.release;
    let evidence = client.evidence(&release).await?;
    // From here on there need be no network: the evidence can be kept in a file, as JSON.
    Ok(snapshot::verify(folder, &evidence, &[root], &Demands::default())?)
}

/// Waits until something is recalled that `uses` names, and says why.
pub async fn wait_for_recall(node: &str, uses: &[Digest]) -> Result<String, ClientError> {
    let client = Client::at(node)?;
    let mut known = BTreeSet::new();
    loop {
        let mut feed = client.recall_feed(known).await?;
        while let Some(recall) = feed.next().await? {
            if uses.contains(&recall.release) {
                return Ok(recall.reason);
            }
        }
        // The node stopped; when it is back, nothing is told twice.
        known = feed.known().clone();
    }
}
