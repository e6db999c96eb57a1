//! How many cells of the cache are in use, exactly: sequences that begin alike share theirs.
//!
//! The numbers here are not those of the engine, which places tokens as it likes; but as many are in use there as here,
//! because the same is shared, appended and cut in the same order.

/// The cells of a cache.
#[derive(Debug)]
pub(super) struct Cells {
    /// How many sequences hold each cell.
    holders: Vec<u16>,
    free: Vec<u32>,
}

impl Cells {
    /// `capacity` free cells.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
        Self { holders: vec![0; capacity as usize], free: (0..capacity).rev().collect() }
    }

    /// A free cell, for one sequence.
    pub(super) fn take(&mut self) -> Option<u32> {
        let cell = self.free.pop()?;
        self.holders[cell as usize] = 1;
        Some(cell)
    }

    /// One more sequence holds `cells`.
    pub(super) fn share(&mut self, cells: &[u32]) {
        for cell in cells {
            self.holders[*cell as usize] += 1;
        }
    }

    /// One sequence less holds `cells`.
    pub(super) fn release(&mut self, cells: impl IntoIterator<Item = u32>) {
        for cell in cells {
            let holders = &mut self.holders[cell as usize];
            *holders = holders.saturating_sub(1);
            if *holders == 0 {
                self.free.push(cell);
            }
        }
    }

    /// How many cells nobody but these sequences hold.
    pub(super) fn only_of<'a>(&self, sequences: impl Iterator<Item = &'a [u32]>) -> usize {
        let mut held = vec![0u16; self.holders.len()];
        for cell in sequences.flatten() {
            held[*cell as usize] += 1;
        }
        held.iter().zip(&self.holders).filter(|(held, holders)| **held > 0 && held == holders).count()
    }

    /// Cells that nobody holds.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Cells that somebody holds.
    pub(super) fn used(&self) -> usize {
        self.holders.len() - self.free.len()
    }

    /// All cells.
    pub(super) fn capacity(&self) -> usize {
        self.holders.len()
    }
}
