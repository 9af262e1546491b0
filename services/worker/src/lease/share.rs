//! The part of a lease that is on this worker: which of its ranks, and where they meet the others.

use pomona_api::trainer::Rendezvous;
use pomona_api::v1::workers::Gang;

/// Where ranks of one machine find each other.
const LOOPBACK: &str = "127.0.0.1";

/// This worker's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The rank of the first slot here.
    pub first_rank: u32,
    /// Slots of the whole lease.
    pub world_size: u32,
    /// This worker's place among those of the lease, from 0.
    pub part: u32,
    /// Workers of the lease.
    pub parts: u32,
    /// Where the ranks meet, when rank 0 is elsewhere.
    pub meets_at: Option<Rendezvous>,
    /// The address on which they meet here, when rank 0 is here.
    pub host: String,
}

impl Share {
    /// A lease that is wholly here.
    pub fn whole(slots: usize) -> Self {
        Self {
            first_rank: 0,
            world_size: slots as u32,
            part: 0,
            parts: 1,
            meets_at: None,
            host: LOOPBACK.to_owned(),
        }
    }

    /// A part of a lease on several workers; others reach this one at `host`.
    pub fn of(gang: &Gang, meets_at: Option<Rendezvous>, host: String) -> Self {
        Self {
            first_rank: gang.first_rank,
            world_size: gang.world_size,
            part: gang.part,
            parts: gang.parts,
            meets_at,
            host,
        }
    }

    /// Whether rank 0 is here.
    pub fn leads(&self) -> bool {
        self.part == 0
    }

    /// Whether others have ranks of it.
    pub fn is_wide(&self) -> bool {
        self.parts > 1
    }

    /// The number of a rank in the whole lease.
    pub fn rank(&self, local: u32) -> u32 {
        self.first_rank + local
    }
}
