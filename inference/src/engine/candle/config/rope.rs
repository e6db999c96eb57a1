//! How positions turn queries and keys: plain rotation, or Llama 3's, which slows the long waves down.

use serde_json::Value;

use super::MAX_POSITIONS;
use super::fields::{ConfigError, Fields};

/// A rotation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    /// The base of the wavelengths.
    pub(crate) theta: f64,
    /// Llama 3's scaling, if any.
    pub(crate) scaling: Option<Llama3>,
}

/// Llama 3's scaling: waves longer than the period that the model was first trained on are slowed by `factor`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Llama3 {
    pub(crate) factor: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) original: usize,
}

impl Rope {
    /// From `rope_parameters`, or `rope_theta` and `rope_scaling` as older files have them.
    pub(crate) fn read(fields: &mut Fields) -> Result<Self, ConfigError> {
        fields.must_be("partial_rotary_factor", &Value::from(1.0))?;
        let outer = fields.number("rope_theta")?;
        let (new, old) = (object(fields, "rope_parameters")?, object(fields, "rope_scaling")?);
        let mut inside = match (new, old) {
            (Some(new), None) => new,
            (None, Some(old)) => old,
            (None, None) => Fields::within(serde_json::Map::new()),
            (Some(_), Some(_)) => {
                return Err(ConfigError::Sizes("both rope_parameters and rope_scaling are there"));
            }
        };
        let inner = inside.number("rope_theta")?;
        let theta = match (outer, inner) {
            (Some(outer), Some(inner)) if outer != inner => {
                return Err(ConfigError::Sizes("rope_theta is there twice, with different values"));
            }
            (outer, inner) => inner.or(outer).ok_or(ConfigError::Absent("rope_theta"))?,
        };
        if !(1.0..=1e12).contains(&theta) {
            return Err(ConfigError::value("rope_theta", &Value::from(theta), "a number from 1 to 1e12"));
        }
        inside.must_be("partial_rotary_factor", &Value::from(1.0))?;
        let scaling = scaling(&mut inside)?;
        inside.nothing_left(&[])?;
        Ok(Self { theta, scaling })
    }

    /// Turns per token of each pair of a head of `head_dim`, in radians.
    pub(crate) fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2).map(|pair| self.frequency(pair, head_dim) as f32).collect()
    }

    fn frequency(&self, pair: usize, head_dim: usize) -> f64 {
        let plain = self.theta.powf(-2.0 * pair as f64 / head_dim as f64);
        let Some(Llama3 { factor, low, high, original }) = self.scaling else {
            return plain;
        };
        let original = original as f64;
        let wavelength = std::f64::consts::TAU / plain;
        if wavelength < original / high {
            plain
        } else if wavelength > original / low {
            plain / factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 - smooth) * plain / factor + smooth * plain
        }
    }
}

fn object(fields: &mut Fields, field: &'static str) -> Result<Option<Fields>, ConfigError> {
    match fields.take(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(inside)) => Ok(Some(Fields::within(inside))),
        Some(other) => Err(ConfigError::value(field, &other, "an object")),
    }
}

fn scaling(inside: &mut Fields) -> Result<Option<Llama3>, ConfigError> {
    let old = inside.take("type");
    let kind = inside.take("rope_type").or(old).unwrap_or_else(|| Value::from("default"));
    match kind.as_str() {
        Some("default") => Ok(None),
        Some("llama3") => {
            let mut part = |field| match inside.number(field)? {
                Some(number) if number > 0.0 && number < 1e6 => Ok(number),
                Some(number) => Err(ConfigError::value(field, &Value::from(number), "a positive number")),
                None => Err(ConfigError::Absent(field)),
            };
            let (factor, low, high) = (part("factor")?, part("low_freq_factor")?, part("high_freq_factor")?);
            if high <= low || factor < 1.0 {
                return Err(ConfigError::Sizes("Llama 3's rotation needs low < high and factor >= 1"));
            }
            let original = inside.count("original_max_position_embeddings", MAX_POSITIONS)?;
            Ok(Some(Llama3 { factor, low, high, original }))
        }
        _ => Err(ConfigError::value("rope_type", &kind, "`default` or `llama3`")),
    }
}
