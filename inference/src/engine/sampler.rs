//! From logits to the next token. No engine is in it: each gives the logits of one place.

use std::cmp::Ordering;
use std::collections::HashMap;

use toktrie::SimpleVob;

use super::{Likelihood, Sampling, Token};

/// Below this a temperature is taken as 0: dividing by it would only overflow.
const GREEDY_BELOW: f32 = 1e-4;
/// So many of the likeliest tokens are sorted at first for `top_p`; the share is nearly always among them.
const FIRST_SORTED: usize = 64;

/// There is nothing to choose from: no logit is a number, as in weights that are broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the model computed no finite number for the next token; its weights are broken")]
pub(crate) struct NoNumber;

/// Chooses the tokens of one answer.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    bias: Vec<(Token, f32)>,
    /// How often each token occurred in the answer; only where penalties ask for it.
    counts: HashMap<Token, u32>,
    random: Random,
    /// Changed logits, or shares; kept for its memory.
    work: Vec<f32>,
}

impl Sampler {
    /// A sampler for one answer. `bias` is added to the logits of its tokens.
    pub(crate) fn new(sampling: Sampling, bias: Vec<(Token, f32)>) -> Self {
        let random = Random(u64::from(sampling.seed));
        Self { sampling, bias, counts: HashMap::new(), random, work: Vec::new() }
    }

    /// The next token by `logits`, one a token of the vocabulary; with a mask only one that it allows.
    pub(crate) fn choose(&mut self, logits: &[f32], mask: Option<&SimpleVob>) -> Result<Token, NoNumber> {
        let Sampling { frequency_penalty, presence_penalty, temperature, .. } = self.sampling;
        let penalties = frequency_penalty != 0.0 || presence_penalty != 0.0;
        let greedy = temperature < GREEDY_BELOW;
        let token = if greedy && mask.is_none() && !penalties && self.bias.is_empty() {
            best(logits).ok_or(NoNumber)?
        } else {
            self.change(logits, mask);
            if greedy { best(&self.work).ok_or(NoNumber)? } else { self.draw()? }
        };
        if penalties {
            *self.counts.entry(token).or_default() += 1;
        }
        Ok(token)
    }

    /// Puts the logits with bias, penalties and mask into `work`.
    fn change(&mut self, logits: &[f32], mask: Option<&SimpleVob>) {
        self.work.clear();
        self.work.extend_from_slice(logits);
        let slot = |work: &mut Vec<f32>, token: Token, change: f32| {
            if let Some(logit) = usize::try_from(token).ok().and_then(|token| work.get_mut(token)) {
                *logit += change;
            }
        };
        for (token, count) in &self.counts {
            let penalty = self.sampling.frequency_penalty * *count as f32 + self.sampling.presence_penalty;
            slot(&mut self.work, *token, -penalty);
        }
        for (token, bias) in &self.bias {
            slot(&mut self.work, *token, *bias);
        }
        if let Some(mask) = mask {
            for (token, logit) in (0u32..).zip(self.work.iter_mut()) {
                if (token as usize) >= mask.len() || !mask.is_allowed(token) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// Draws by the changed logits: temperature first, then `top_p` of what that makes of them, as OpenAI and vLLM mean it.
    fn draw(&mut self) -> Result<Token, NoNumber> {
        let top = best(&self.work).ok_or(NoNumber)?;
        let highest = self.work[top as usize];
        for logit in &mut self.work {
            let share = ((*logit - highest) / self.sampling.temperature).exp();
            *logit = if share.is_finite() { share } else { 0.0 };
        }
        let total: f64 = self.work.iter().map(|share| f64::from(*share)).sum();
        let chance = self.random.unit();
        if self.sampling.top_p >= 1.0 {
            let all = (0..).zip(self.work.iter().copied());
            return Ok(pick(all, chance * total).unwrap_or(top));
        }
        let nucleus = nucleus(&self.work, f64::from(self.sampling.top_p) * total);
        let within: f64 = nucleus.iter().map(|(_, share)| f64::from(*share)).sum();
        Ok(pick(nucleus.into_iter(), chance * within).unwrap_or(top))
    }
}

/// The likeliest token, the first of equals.
fn best(logits: &[f32]) -> Option<Token> {
    let mut best = None;
    let mut highest = f32::NEG_INFINITY;
    for (token, logit) in (0..).zip(logits) {
        if *logit > highest {
            (best, highest) = (Some(token), *logit);
        }
    }
    best.filter(|_| highest.is_finite())
}

/// The token at which the running sum of shares passes `at`.
fn pick(shares: impl Iterator<Item = (Token, f32)>, at: f64) -> Option<Token> {
    let mut sum = 0.0;
    let mut last = None;
    for (token, share) in shares.filter(|(_, share)| *share > 0.0) {
        sum += f64::from(share);
        last = Some(token);
        if sum > at {
            break;
        }
    }
    last
}

/// The fewest tokens, the likeliest first, whose shares make up `wanted`; at least one.
fn nucleus(shares: &[f32], wanted: f64) -> Vec<(Token, f32)> {
    let mut all: Vec<(Token, f32)> =
        (0..).zip(shares.iter().copied()).filter(|(_, share)| *share > 0.0).collect();
    let mut sorted = FIRST_SORTED;
    loop {
        likeliest(&mut all, sorted);
        let mut sum = 0.0;
        for (index, (_, share)) in all.iter().enumerate().take(sorted) {
            sum += f64::from(*share);
            if sum >= wanted {
                all.truncate(index + 1);
                return all;
            }
        }
        if sorted >= all.len() {
            return all;
        }
        sorted = sorted.saturating_mul(8);
    }
}

/// Brings the `count` highest to the front, sorted.
fn likeliest(all: &mut [(Token, f32)], count: usize) {
    let order = |one: &(Token, f32), other: &(Token, f32)| {
        other.1.partial_cmp(&one.1).unwrap_or(Ordering::Equal).then(one.0.cmp(&other.0))
    };
    if count == 0 || all.is_empty() {
        return;
    }
    if count < all.len() {
        all.select_nth_unstable_by(count - 1, order);
    }
    let end = count.min(all.len());
    all[..end].sort_unstable_by(order);
}

/// How likely `token` was by the model's own logits, before bias, penalties and temperature, and the `top` likeliest.
/// `bytes` gives a token's.
pub(crate) fn likelihood(
    logits: &[f32],
    token: Token,
    top: usize,
    bytes: impl Fn(Token) -> Vec<u8>,
) -> Likelihood {
    let highest = logits.iter().copied().filter(|logit| logit.is_finite()).fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 =
        logits.iter().filter(|logit| logit.is_finite()).map(|logit| f64::from(logit - highest).exp()).sum();
    let whole = highest + sum.ln() as f32;
    let logprob = |logit: f32| (logit - whole).min(0.0);
    let mut all: Vec<(Token, f32)> = Vec::new();
    if top > 0 {
        all = (0..).zip(logits.iter().copied()).filter(|(_, logit)| logit.is_finite()).collect();
        likeliest(&mut all, top);
        all.truncate(top);
    }
    let logit = usize::try_from(token).ok().and_then(|token| logits.get(token)).copied();
    Likelihood {
        bytes: bytes(token),
        logprob: logit.map_or(f32::MIN, logprob),
        top: all.into_iter().map(|(token, logit)| (bytes(token), logprob(logit))).collect(),
    }
}

/// SplitMix64: the same seed gives the same numbers on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn with(temperature: f32, top_p: f32) -> Sampling {
        Sampling { temperature, top_p, seed: 5, ..Sampling::GREEDY }
    }

    fn draws(sampling: Sampling, logits: &[f32], count: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(sampling, Vec::new());
        let mut counts = vec![0; logits.len()];
        (0..count).for_each(|_| counts[sampler.choose(logits, None).unwrap() as usize] += 1);
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest_and_no_number_is_an_error() {
        let mut greedy = Sampler::new(Sampling::GREEDY, Vec::new());
        assert_eq!(greedy.choose(&[0.0, 3.0, f32::NAN, 3.0], None), Ok(1));
        assert_eq!(greedy.choose(&[f32::NAN, f32::NEG_INFINITY], None), Err(NoNumber));
        assert_eq!(greedy.choose(&[f32::INFINITY], None), Err(NoNumber));
        assert_eq!(Sampler::new(with(1.0, 0.9), Vec::new()).choose(&[f32::NAN; 4], None), Err(NoNumber));
    }

    #[test]
    fn tokens_come_as_often_as_they_are_likely() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln(), f32::NEG_INFINITY];
        let counts = draws(with(1.0, 1.0), &logits, 10_000);
        for (count, expected) in counts.iter().zip([5000, 3000, 2000, 0]) {
            assert!(count.abs_diff(expected) < 200, "{counts:?}");
        }
        let counts = draws(with(1.0, 0.75), &logits, 10_000);
        assert!(counts[0].abs_diff(6250) < 200 && counts[2] == 0, "{counts:?}");
        assert_eq!(draws(with(1.0, 0.0), &logits, 100)[0], 100);
        assert!(draws(with(0.3, 1.0), &logits, 10_000)[0] > 8000);
        assert_eq!(draws(with(1.0, 1.0), &logits, 50), draws(with(1.0, 1.0), &logits, 50));
    }

    #[test]
    fn a_large_nucleus_is_found_too() {
        let flat = vec![0.0; 10_000];
        let counts = draws(with(1.0, 0.5), &flat, 20_000);
        assert_eq!(counts.iter().skip(5000).sum::<usize>(), 0);
        assert!(counts.iter().take(5000).filter(|count| **count > 0).count() > 4500);
    }

    #[test]
    fn bias_penalties_and_masks_change_the_choice() {
        let logits = [1.0, 0.9, 0.0];
        assert_eq!(Sampler::new(Sampling::GREEDY, vec![(2, 5.0), (99, 1.0)]).choose(&logits, None), Ok(2));
        let mut sampler = Sampler::new(Sampling { presence_penalty: 0.5, ..Sampling::GREEDY }, Vec::new());
        assert_eq!([0; 3].map(|_| sampler.choose(&logits, None).unwrap()), [0, 1, 0]);
        let mut mask = SimpleVob::alloc(3);
        mask.allow_token(2);
        assert_eq!(Sampler::new(Sampling::GREEDY, Vec::new()).choose(&logits, Some(&mask)), Ok(2));
        let none = SimpleVob::alloc(3);
        assert_eq!(Sampler::new(Sampling::GREEDY, Vec::new()).choose(&logits, Some(&none)), Err(NoNumber));
    }

    #[test]
    fn likelihoods_are_those_of_the_model() {
        let logits = [0.5f32.ln() + 7.0, 0.3f32.ln() + 7.0, 0.2f32.ln() + 7.0];
        let likely = likelihood(&logits, 1, 2, |token| vec![token as u8]);
        assert!((likely.logprob - 0.3f32.ln()).abs() < 1e-4);
        assert_eq!(likely.top.iter().map(|(bytes, _)| bytes[0]).collect::<Vec<_>>(), [0, 1]);
        assert!((likely.top[0].1 - 0.5f32.ln()).abs() < 1e-4);
    }
}
