//! Choosing a token from logits.
//!
//! Penalties first, then temperature, then the nucleus, as OpenAI's and vLLM's parameters mean it, and as llama.cpp's chain
//! does it here. The random numbers are SplitMix64 (Steele, Lea and Flood, 2014) from the request's seed.

use std::collections::HashMap;

use crate::engine::{Sampling, Token};

/// Below this a temperature is taken as 0: dividing by it would only overflow.
pub(super) const GREEDY_BELOW: f32 = 1e-4;

/// Logits that nothing can be chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the model computed {0} instead of a number for each token: its weights are broken or were made to break it; this answer \
     ends here, others are not touched"
)]
pub(super) struct NoNumbers(&'static str);

/// Chooses the tokens of one answer.
#[derive(Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    /// How often each token occurred in the answer.
    counts: HashMap<usize, u32>,
    state: u64,
}

impl Sampler {
    /// For a new answer.
    pub(super) fn new(sampling: Sampling) -> Self {
        Self { sampling, counts: HashMap::new(), state: u64::from(sampling.seed) }
    }

    /// The next token; it counts for the penalties from now on. Minus infinity excludes a token; any other logit that is no
    /// finite number is an error, as is a row without any that is.
    pub(super) fn choose(&mut self, logits: &mut [f32]) -> Result<Token, NoNumbers> {
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(NoNumbers("NaN"));
        }
        if logits.contains(&f32::INFINITY) {
            return Err(NoNumbers("infinity"));
        }
        self.penalise(logits);
        let best = likeliest(logits).ok_or(NoNumbers("nothing"))?;
        let chosen = if self.sampling.temperature < GREEDY_BELOW {
            best
        } else {
            self.draw(logits, logits.get(best).copied().unwrap_or_default())
        };
        *self.counts.entry(chosen).or_default() += 1;
        Token::try_from(chosen).map_err(|_| NoNumbers("too many tokens"))
    }

    fn penalise(&self, logits: &mut [f32]) {
        let Sampling { frequency_penalty, presence_penalty, .. } = self.sampling;
        if frequency_penalty == 0.0 && presence_penalty == 0.0 {
            return;
        }
        for (&token, &count) in &self.counts {
            if let Some(logit) = logits.get_mut(token) {
                *logit -= count as f32 * frequency_penalty + presence_penalty;
            }
        }
    }

    /// By chance, in proportion to the likelihood at this temperature, from the nucleus.
    fn draw(&mut self, logits: &[f32], best: f32) -> usize {
        let temperature = self.sampling.temperature;
        let mut shares: Vec<(f32, usize)> = logits
            .iter()
            .enumerate()
            .map(|(token, logit)| (((logit - best) / temperature).exp(), token))
            .filter(|(share, _)| *share > 0.0)
            .collect();
        let mut total: f64 = shares.iter().map(|(share, _)| f64::from(*share)).sum();
        if self.sampling.top_p < 1.0 {
            // Equal shares by number, so that the nucleus is the same on every machine.
            shares.sort_unstable_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
            let wanted = total * f64::from(self.sampling.top_p.max(0.0));
            let mut sum = 0.0;
            let kept = shares.iter().take_while(|(share, _)| {
                let open = sum < wanted;
                sum += f64::from(*share);
                open
            });
            let kept = kept.count().max(1);
            shares.truncate(kept);
            total = shares.iter().map(|(share, _)| f64::from(*share)).sum();
        }
        let mut left = self.random() * total;
        for (share, token) in &shares {
            left -= f64::from(*share);
            if left < 0.0 {
                return *token;
            }
        }
        // Rounding may leave a crumb at the end.
        shares.last().map_or(0, |(_, token)| *token)
    }

    /// From 0 up to, not including, 1.
    fn random(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The first of the largest; none where all are excluded.
fn likeliest(logits: &[f32]) -> Option<usize> {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if best == f32::NEG_INFINITY { None } else { logits.iter().position(|logit| *logit == best) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PLAIN: Sampling =
        Sampling { temperature: 1.0, top_p: 1.0, seed: 7, frequency_penalty: 0.0, presence_penalty: 0.0 };

    /// How often each of `logits` is chosen in 20,000 fresh draws.
    fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        const DRAWS: usize = 20_000;
        let mut sampler = Sampler::new(sampling);
        let mut counts = vec![0u32; logits.len()];
        for _ in 0..DRAWS {
            sampler.counts.clear();
            counts[sampler.choose(&mut logits.to_vec()).unwrap() as usize] += 1;
        }
        counts.into_iter().map(|count| f64::from(count) / DRAWS as f64).collect()
    }

    fn close(found: &[f64], wanted: &[f64]) {
        let far = found.iter().zip(wanted).any(|(found, wanted)| (found - wanted).abs() > 0.015);
        assert!(!far && found.len() == wanted.len(), "{found:?} instead of {wanted:?}");
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest() {
        let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..PLAIN });
        assert_eq!(sampler.choose(&mut [0.5, 2.0, 2.0, f32::NEG_INFINITY]).unwrap(), 1);
    }

    #[test]
    fn temperature_and_nucleus_make_the_shares_that_they_say() {
        let logits = [4f32.ln(), 3f32.ln(), 2f32.ln(), 1f32.ln()];
        close(&shares(PLAIN, &logits), &[0.4, 0.3, 0.2, 0.1]);
        // Half the temperature squares the odds.
        close(
            &shares(Sampling { temperature: 0.5, ..PLAIN }, &logits),
            &[16.0 / 30.0, 9.0 / 30.0, 4.0 / 30.0, 1.0 / 30.0],
        );
        close(&shares(Sampling { top_p: 0.69, ..PLAIN }, &logits), &[4.0 / 7.0, 3.0 / 7.0, 0.0, 0.0]);
        close(&shares(Sampling { top_p: 0.0, ..PLAIN }, &logits), &[1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_same_seed_gives_the_same_answer_and_another_another() {
        let answer = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..PLAIN });
            (0..64).map(|_| sampler.choose(&mut [0.0; 16]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(answer(1), answer(1));
        assert_ne!(answer(1), answer(2));
    }

    #[test]
    fn penalties_count_what_occurred() {
        let sampling = Sampling { temperature: 0.0, frequency_penalty: 0.5, presence_penalty: 0.25, ..PLAIN };
        let mut sampler = Sampler::new(sampling);
        let mut next = || sampler.choose(&mut [1.0, 0.9, 0.0]).unwrap();
        // 1.0 - 0.75, then 0.9 - 0.75, then 1.0 - 1.25 and 0.9 - 1.25 against 0.
        assert_eq!([next(), next(), next(), next(), next()], [0, 1, 0, 1, 2]);
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        let mut sampler = Sampler::new(PLAIN);
        for (mut logits, word) in [
            ([0.0, f32::NAN], "NaN"),
            ([f32::INFINITY, 0.0], "infinity"),
            ([f32::NEG_INFINITY; 2], "nothing"),
        ] {
            let error = sampler.choose(&mut logits).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(sampler.choose(&mut []).is_err());
    }
}
