//! How often somebody may ask: a bucket for each address and each token, refilled by the minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Addresses and tokens that are counted one by one; when they are more, those whose buckets are full are forgotten, and
/// whoever finds no place shares one bucket with all others who find none.
const MAX_BUCKETS: usize = 8192;
/// What a request with a wrong token counts: guessing is slow.
pub(super) const WRONG_TOKEN: f64 = 20.0;

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// An address; of IPv6 the network of 64 bits, which is one customer's.
    Address(IpAddr),
    /// A token, by its identifier.
    Token(String),
    /// All for whom there is no place.
    Others,
}

impl Who {
    pub(super) fn at(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Address(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::Address(std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
        }
    }
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// Everybody's buckets.
#[derive(Debug)]
pub(super) struct Rates {
    /// Requests a minute, and at once; 0 for no limit.
    per_minute: f64,
    buckets: Mutex<HashMap<Who, Bucket>>,
}

impl Rates {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute: per_minute.into(), buckets: Mutex::default() }
    }

    /// Counts `cost` requests of `who`; in how many seconds to come again, when there were too many.
    pub(super) fn take(&self, who: Who, cost: f64, now: Instant) -> Result<(), u64> {
        if self.per_minute <= 0.0 {
            return Ok(());
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let refilled = |bucket: &Bucket| {
            let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.left + passed * self.per_minute / 60.0).min(self.per_minute)
        };
        if !buckets.contains_key(&who) && buckets.len() >= MAX_BUCKETS {
            buckets.retain(|_, bucket| refilled(bucket) < self.per_minute);
        }
        let who = if buckets.contains_key(&who) || buckets.len() < MAX_BUCKETS { who } else { Who::Others };
        let bucket = buckets.entry(who).or_insert(Bucket { left: self.per_minute, at: now });
        bucket.left = refilled(bucket);
        bucket.at = now;
        if bucket.left < cost.min(self.per_minute) {
            let missing = cost.min(self.per_minute) - bucket.left;
            // At most a minute.
            return Err((missing * 60.0 / self.per_minute).ceil().max(1.0) as u64);
        }
        bucket.left -= cost;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_asks_too_often_waits_and_nobody_else_does() {
        let rates = Rates::new(60);
        let start = Instant::now();
        let (one, other) = (Who::at("192.0.2.1".parse().unwrap()), Who::Token("t".to_owned()));
        for _ in 0..60 {
            rates.take(one.clone(), 1.0, start).unwrap();
        }
        assert_eq!(rates.take(one.clone(), 1.0, start), Err(1));
        rates.take(other, 1.0, start).unwrap();
        rates.take(one.clone(), 1.0, start + Duration::from_secs(1)).unwrap();
        assert!(rates.take(one, WRONG_TOKEN, start + Duration::from_secs(3)).is_err());
        assert_eq!(Who::at("2001:db8::1".parse().unwrap()), Who::at("2001:db8::ffff:1".parse().unwrap()));
    }

    #[test]
    fn many_addresses_take_bounded_memory() {
        let rates = Rates::new(60);
        let start = Instant::now();
        for number in 0..3 * MAX_BUCKETS as u32 {
            let _ = rates.take(Who::at(std::net::Ipv4Addr::from(number).into()), 1.0, start);
        }
        assert!(rates.buckets.lock().unwrap().len() <= MAX_BUCKETS + 1);
    }
}
