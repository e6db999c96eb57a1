//! What whoever fetched something of a model should know: which of its releases were recalled since.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use registry::Model;
use registry::admit;
use registry::store::{Store, StoreError};

use super::super::Api;
use super::super::stream::blocking;
use super::super::verdict::words;
use super::names::Names;
use crate::error::Problem;

/// Models whose warnings are remembered.
const MAX_WARNED: usize = 256;
/// Warnings of one model: more would not fit a head.
const MAX_WARNINGS: usize = 8;

/// Of a model: the state of trust and statements when its warnings were found, and they.
type Known = HashMap<Model, (u64, u64, Arc<Vec<String>>)>;

/// Warnings, as long as nothing was said since.
#[derive(Debug, Default)]
pub(super) struct Warned(Mutex<Known>);

impl Warned {
    /// The warnings of `model`, whose releases are in `names`.
    pub(super) async fn of(
        &self,
        api: &Api,
        model: &Model,
        names: &Arc<Names>,
    ) -> Result<Arc<Vec<String>>, Problem> {
        let (generation, seen) = (api.node().generation(), api.store().last_seq());
        {
            let warned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match warned.get(model) {
                Some((then, upto, warnings)) if (*then, *upto) == (generation, seen) => {
                    return Ok(Arc::clone(warnings));
                }
                _ => {}
            }
        }
        let (store, of, names) = (api.store().clone(), model.clone(), Arc::clone(names));
        let found = blocking(move || Ok(recalled_of(&store, &of, &names)?)).await?;
        let found = Arc::new(found);
        let mut warned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() >= MAX_WARNED {
            warned.clear();
        }
        warned.insert(model.clone(), (generation, seen, Arc::clone(&found)));
        Ok(found)
    }
}

fn recalled_of(store: &Store, model: &Model, names: &Names) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    if store.recalls()?.is_empty() {
        return Ok(found);
    }
    for entry in names.releases.iter().rev() {
        if let Some((_, recall)) = admit::binding_recall(store, &entry.release)? {
            found.push(words(&format!("{model}@{}", entry.version), &recall));
        }
        if found.len() >= MAX_WARNINGS {
            break;
        }
    }
    Ok(found)
}
