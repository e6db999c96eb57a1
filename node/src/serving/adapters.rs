//! Adapters that go with a worker's model: admitted each by itself, held to the lineage that its publisher signed, and taken out of
//! service without the model.

use registry::admit::{AdapterError, AdmitError};
use registry::admitted::{Admitted, Handoff};
use registry::serving::Order;
use registry::serving::hand::MAX_ADAPTERS;
use registry::{Digest, Nation, Reference, Timestamp};

use super::process::Orders;
use super::run::Run;
use super::start::blocking;
use super::{ServingError, Start, StopOrder, Workers};
use crate::events::AdapterInfo;
use crate::node::PullOptions;

/// An adapter as people are shown it.
pub(super) fn shown(adapter: &Admitted) -> AdapterInfo {
    AdapterInfo {
        release: adapter.release(),
        model: adapter.model().clone(),
        version: adapter.version().clone(),
        withdrawn: None,
    }
}

impl Workers {
    /// Admits what is to go with a model. Adapters are small: what is not here is fetched before the worker starts.
    pub(super) async fn admit_adapters(&self, start: &Start) -> Result<Vec<Admitted>, ServingError> {
        if start.adapters.len() > MAX_ADAPTERS {
            return Err(ServingError::TooManyAdapters(start.adapters.len()));
        }
        let (store, release) = (self.shared.store.clone(), start.release);
        if let Ok(Some(model)) = blocking(move || store.release(&release)).await?
            && !registry::admit::bases(&model).is_empty()
        {
            return Err(ServingError::AdapterAlone(format!("{}@{}", model.model, model.version)));
        }
        let mut admitted: Vec<Admitted> = Vec::new();
        for adapter in &start.adapters {
            if admitted.iter().all(|other| other.release() != *adapter) {
                admitted.push(self.admit_adapter(*adapter, start.release).await?);
            }
        }
        Ok(admitted)
    }

    async fn admit_adapter(&self, adapter: Digest, model: Digest) -> Result<Admitted, ServingError> {
        let store = self.shared.store.clone();
        let admit = move || registry::admit::adapter(&store, &adapter, &model, Timestamp::now());
        let online = self.shared.node.get().filter(|node| node.is_online());
        let mut decided = blocking(admit.clone()).await?;
        if let (Err(AdapterError::Admit(AdmitError::Refused { .. })), Some(node)) = (&decided, online) {
            // The log may be a moment behind the statement.
            crate::log::wait::for_policy(node, adapter).await;
            decided = blocking(admit.clone()).await?;
        }
        if let (Err(AdapterError::Admit(AdmitError::Incomplete { .. })), Some(node)) = (&decided, online) {
            let options = PullOptions { refresh: false, progress: None };
            let pulled = node.pull(Reference::Digest(adapter), options).await;
            pulled.map_err(|error| ServingError::AdapterFetch { adapter, source: Box::new(error) })?;
            decided = blocking(admit).await?;
        }
        Ok(decided?)
    }

    /// Tells worker `id` that one of its adapters may not be served any more.
    pub(super) fn order_withdrawal(&self, id: u64, adapter: Digest, order: StopOrder) {
        if let Some(entry) = self.table().workers.get(&id) {
            // There is room for each adapter once; full means that it was told of this one.
            let _ = entry.withdraw.try_send((adapter, order));
        }
    }
}

impl Run {
    /// The nations whose models it serves.
    pub(super) fn producers(&self) -> impl Iterator<Item = &Nation> {
        let adapters = self.launch.adapters.iter().map(|adapter| &adapter.admitted);
        std::iter::once(&self.launch.admitted).chain(adapters).map(Handoff::producer)
    }

    /// Has the worker serve an adapter no more. One that can't be told so stops altogether: the order for that comes back.
    pub(super) async fn withdraw(
        &mut self,
        adapter: Digest,
        order: StopOrder,
        orders: &mut Orders,
    ) -> Result<(), StopOrder> {
        let known =
            self.told.borrow().adapters.iter().any(|one| one.release == adapter && one.withdrawn.is_none());
        if !known {
            return Ok(());
        }
        let line = Order::Withdraw { release: adapter, code: order.code(), reason: order.reason.clone() };
        if let Err(error) = orders.send_soon(&line).await {
            let worker = self.told.borrow().id;
            tracing::warn!(worker, %error, "a worker could not be told of an adapter, and stops");
            return Err(order);
        }
        self.note_withdrawn(adapter, &order.reason);
        Ok(())
    }

    fn note_withdrawn(&self, adapter: Digest, reason: &str) {
        self.tell(|info| {
            for one in info.adapters.iter_mut().filter(|one| one.release == adapter) {
                one.withdrawn = Some(reason.to_owned());
            }
        });
    }

    /// Decides about each adapter once more; the next process goes without those that may not be served.
    pub(super) async fn readmit_adapters(&mut self, model: Digest) {
        let gone: Vec<Digest> = {
            let info = self.told.borrow();
            let gone = info.adapters.iter().filter(|adapter| adapter.withdrawn.is_some());
            gone.map(|adapter| adapter.release).collect()
        };
        let mut kept = Vec::new();
        for mut adapter in std::mem::take(&mut self.launch.adapters) {
            let release = adapter.admitted.release();
            if gone.contains(&release) {
                continue;
            }
            let store = self.store.clone();
            let admit = move || registry::admit::adapter(&store, &release, &model, Timestamp::now());
            match blocking(admit).await {
                Ok(Ok(admitted)) => {
                    adapter.admitted = admitted.handoff().clone();
                    kept.push(adapter);
                }
                Ok(Err(error)) => self.note_withdrawn(release, &error.to_string()),
                Err(error) => self.note_withdrawn(release, &error.to_string()),
            }
        }
        self.launch.adapters = kept;
    }
}
