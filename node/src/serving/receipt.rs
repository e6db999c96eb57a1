//! Signing receipts for answers that a worker gave. The key is the node's own, which the worker never sees.

use registry::key::SecretKey;
use registry::receipt::{Adapter, Claim, peer_of};
use registry::serving::Signing;
use registry::{Digest, Nation, Signed, Timestamp};

use crate::events::WorkerInfo;
use crate::layout::Layout;

/// What signs: the node's key, and its nation's word for it.
pub(super) struct Notary {
    key: SecretKey,
    certificate: Signed,
    nation: Nation,
    node: String,
}

impl Notary {
    /// The node's own key and certificate, from its folder; why not, for people.
    pub(super) fn open(layout: &Layout, nation: Nation) -> Result<Self, String> {
        let key = SecretKey::load(&layout.peer_key()).map_err(|error| error.to_string())?;
        let text = std::fs::read(layout.certificate()).map_err(|error| format!("no certificate: {error}"))?;
        let certificate = Signed::parse(&text).map_err(|error| error.to_string())?;
        let node = peer_of(key.public());
        Ok(Self { key, certificate, nation, node })
    }

    /// A receipt for what `worker` says it answered.
    pub(super) fn sign(&self, worker: &WorkerInfo, asked: Signing) -> Result<String, String> {
        let Signing { request, response, sampling, adapter, .. } = asked;
        let adapter = match adapter {
            None => None,
            Some(release) => Some(named(worker, release)?),
        };
        let claim = Claim {
            release: worker.release,
            model: worker.model.clone(),
            version: worker.version.clone(),
            request,
            response,
            engine: worker.engine.clone().unwrap_or_default(),
            sampling,
            nation: self.nation.clone(),
            node: self.node.clone(),
            issued: Timestamp::now(),
            lease_ends: worker.lease_ends,
            adapter,
        };
        let receipt = claim.sign(&self.key, &self.certificate).map_err(|error| error.to_string())?;
        Ok(receipt.to_json())
    }
}

/// The adapter of `worker` with this release, unless it may not be served any more.
fn named(worker: &WorkerInfo, release: Digest) -> Result<Adapter, String> {
    let known = worker.adapters.iter().find(|adapter| adapter.release == release);
    match known.filter(|adapter| adapter.withdrawn.is_none()) {
        Some(known) => Ok(Adapter { release, model: known.model.clone(), version: known.version.clone() }),
        None => Err(format!("the adapter {release} is not served")),
    }
}
