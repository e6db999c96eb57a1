//! How many token vectors become one, as sentence-transformers writes it down beside a model.

use candle_core::Tensor;
use serde_json::{Map, Value};

/// Why the pooling is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolingError {
    /// Nothing says how token vectors become one.
    #[error(
        "it has no `modules.json` of sentence-transformers, which says how token vectors become one; guessing would give \
         vectors that compare with nobody's"
    )]
    Absent,
    /// A chain of modules that is not computed here.
    #[error("modules.json has `{0}`; only Transformer, Pooling and Normalize, in this order, are supported")]
    Module(String),
    /// A pooling that is not computed here.
    #[error("1_Pooling/config.json asks for {0}; only the mean of the tokens is supported")]
    Mode(String),
    /// Another width than the model's.
    #[error("1_Pooling/config.json says {found} values a vector; config.json says {wanted}")]
    Width {
        /// What the pooling says.
        found: String,
        /// What the model has.
        wanted: usize,
    },
}

/// The mean of the token vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pooling {
    /// Whether the mean is scaled to length 1.
    pub(super) normalise: bool,
}

impl Pooling {
    /// From `modules.json` and `1_Pooling/config.json` (each `null` if absent) of a model of width `hidden`.
    pub(super) fn read(modules: &Value, pooling: &Value, hidden: usize) -> Result<Self, PoolingError> {
        let modules = modules.as_array().ok_or(PoolingError::Absent)?;
        let kinds: Vec<&str> = modules.iter().map(kind).collect();
        let normalise = match kinds[..] {
            ["Transformer", "Pooling"] => false,
            ["Transformer", "Pooling", "Normalize"] => true,
            _ => {
                let odd = kinds.iter().find(|kind| !["Transformer", "Pooling", "Normalize"].contains(kind));
                return Err(PoolingError::Module(shown(odd.copied().unwrap_or("another order"))));
            }
        };
        let pooling = pooling.as_object().ok_or(PoolingError::Absent)?;
        mean(pooling)?;
        let width = pooling.get("word_embedding_dimension").or_else(|| pooling.get("embedding_dimension"));
        match width {
            Some(width) if width.as_u64() != Some(hidden as u64) => {
                Err(PoolingError::Width { found: shown(&width.to_string()), wanted: hidden })
            }
            _ => Ok(Self { normalise }),
        }
    }

    /// `[tokens, hidden]` to one vector.
    pub(super) fn pool(self, hidden: &Tensor) -> candle_core::Result<Vec<f32>> {
        let mean = hidden.mean(0)?;
        if !self.normalise {
            return mean.to_vec1();
        }
        // As torch's `normalize`: a vector of zeros stays one.
        let length = mean.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?.max(1e-12);
        (mean / f64::from(length))?.to_vec1()
    }
}

/// The last part of a module's class; its path changed between versions.
fn kind(module: &Value) -> &str {
    let class = module.get("type").and_then(Value::as_str).unwrap_or_default();
    class.rsplit('.').next().unwrap_or_default()
}

/// The mean and nothing beside it, in the older words (one flag a mode) or the newer (one word).
fn mean(pooling: &Map<String, Value>) -> Result<(), PoolingError> {
    if let Some(mode) = pooling.get("pooling_mode") {
        return if mode == "mean" { Ok(()) } else { Err(PoolingError::Mode(shown(&mode.to_string()))) };
    }
    for (name, value) in pooling {
        let is_mean = name == "pooling_mode_mean_tokens";
        if name.starts_with("pooling_mode_") && value.as_bool() != Some(is_mean) {
            return Err(PoolingError::Mode(format!("`{}`: {}", shown(name), shown(&value.to_string()))));
        }
    }
    if pooling.contains_key("pooling_mode_mean_tokens") {
        Ok(())
    } else {
        Err(PoolingError::Mode("no mode by name".to_owned()))
    }
}

fn shown(text: &str) -> String {
    super::config::shown(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn modules(kinds: &[&str]) -> Value {
        kinds.iter().map(|kind| json!({ "type": format!("sentence_transformers.models.{kind}") })).collect()
    }

    #[test]
    fn the_mean_is_known_in_both_spellings_and_nothing_else_is() {
        let chain = modules(&["Transformer", "Pooling", "Normalize"]);
        let old = json!({ "word_embedding_dimension": 8, "pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false });
        let new = json!({ "embedding_dimension": 8, "pooling_mode": "mean", "include_prompt": true });
        for pooling in [&old, &new] {
            assert!(Pooling::read(&chain, pooling, 8).unwrap().normalise);
            assert!(!Pooling::read(&modules(&["Transformer", "Pooling"]), pooling, 8).unwrap().normalise);
            assert!(matches!(Pooling::read(&chain, pooling, 9), Err(PoolingError::Width { .. })));
        }
        for pooling in [
            json!({ "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true }),
            json!({ "pooling_mode_mean_tokens": false, "pooling_mode_cls_token": true }),
            json!({ "pooling_mode_lasttoken": true }),
            json!({ "pooling_mode": "cls" }),
            json!({}),
        ] {
            assert!(matches!(Pooling::read(&chain, &pooling, 8), Err(PoolingError::Mode(_))), "{pooling}");
        }
        let dense = modules(&["Transformer", "Pooling", "Dense"]);
        assert!(matches!(Pooling::read(&dense, &old, 8), Err(PoolingError::Module(odd)) if odd == "Dense"));
        assert!(matches!(Pooling::read(&Value::Null, &old, 8), Err(PoolingError::Absent)));
    }
}
