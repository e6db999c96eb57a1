//! Whose turn it is, where an engine computes with one adapter at a time.

use super::{LANE_TURN, Lane, Schedule};

/// The lanes that may be computed now, whose turn it is first; `None` is all of them together.
pub(super) fn turns(schedule: &mut Schedule) -> Vec<Option<Lane>> {
    if !schedule.limits.apart {
        return vec![None];
    }
    let mut lanes: Vec<Lane> = schedule.at_work().map(|(_, request)| request.lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    let (lane, steps) = schedule.turn;
    let stays = lanes.contains(&lane) && (lanes.len() == 1 || steps < LANE_TURN);
    let first = if stays {
        lanes.iter().position(|other| *other == lane)
    } else {
        lanes.iter().position(|other| *other > lane)
    };
    lanes.rotate_left(first.unwrap_or(0));
    if let Some(first) = lanes.first() {
        schedule.turn = (*first, if stays { steps + 1 } else { 1 });
    }
    lanes.into_iter().map(Some).collect()
}
