//! Data parallelism by libtorch's own c10d: a store where ranks find each other, a group of ranks,
//! and the reducer that averages gradients while backward runs.
//!
//! Rules: the store of a lease is a process of its own; each generation has a prefix of its own;
//! drop the reducer, then the group; all ranks call the same collectives in the same order, from
//! one thread (T2). Tensors of a collective must be contiguous.

pub mod ffi;

use crate::fault;
use cxx::UniquePtr;
use pomona_api::trainer::Rendezvous;
use pomona_domain::{Code, Digest, Fault, Generation};
use std::net::{TcpListener, UdpSocket};
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// How long a rank waits for its peers, at the rendezvous and in a collective. A hung peer is
/// found sooner by the worker's stall detection.
pub const TIMEOUT_MS: u64 = 300_000;

/// PyTorch DDP's sizes: a small first bucket lets the first all-reduce start early.
const FIRST_BUCKET_BYTES: i64 = 1 << 20;
const BUCKET_BYTES: i64 = 25 << 20;

/// A serving c10d TCPStore. Dropping it ends it.
pub struct StoreServer(UniquePtr<ffi::Store>);

impl StoreServer {
    /// Listens on a free port of `host`, and on no other address: c10d by itself would bind every
    /// interface, and it asks nobody who they are. `BadListen` when `host` cannot be bound.
    pub fn bind(host: &str) -> Result<Self, Fault> {
        let bad = |error: std::io::Error| {
            let message = format!("the c10d store cannot listen on `{host}`: {error}");
            Fault::new(Code::BadListen, message)
        };
        let listener = TcpListener::bind((host, 0)).map_err(bad)?;
        let port = listener.local_addr().map_err(bad)?.port();
        ffi::store_serve(host, port, listener, TIMEOUT_MS)
            .map(Self)
            .map_err(|error| fault::collective(&error))
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.port()
    }
}

/// Which of the samples `0..count` belong to `rank`: contiguous parts whose sizes differ by one at
/// most, the larger ones first.
pub fn part(count: usize, rank: u32, world_size: u32) -> Range<usize> {
    let (rank, world) = (rank as usize, world_size.max(1) as usize);
    let (base, rest) = (count / world, count % world);
    let start = rank * base + rank.min(rest);
    start..start + base + usize::from(rank < rest)
}

/// The address of this machine at which peers reach a rank: that from which it reaches the store.
/// Asking for the route sends nothing.
fn own_address(store: &Rendezvous) -> String {
    let route = |any: &str| {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((store.host.as_str(), store.port))?;
        Ok::<_, std::io::Error>(socket.local_addr()?.ip().to_string())
    };
    let found = route("0.0.0.0").or_else(|_| route("::"));
    found.unwrap_or_else(|_| store.host.clone())
}

/// The ranks of a lease. A group of one rank has no peers and calls no collective.
pub struct Group {
    // Declared first: dropped first.
    ranks: Option<UniquePtr<ffi::Group>>,
    _store: Option<UniquePtr<ffi::Store>>,
    rank: u32,
    world_size: u32,
    device: Device,
}

impl Group {
    /// A group of one.
    pub fn alone(device: Device) -> Self {
        Self {
            ranks: None,
            _store: None,
            rank: 0,
            world_size: 1,
            device,
        }
    }

    /// Joins the ranks of `generation` at the lease's store.
    pub fn join(
        rendezvous: &Rendezvous,
        generation: Generation,
        rank: u32,
        world_size: u32,
        device: Device,
    ) -> Result<Self, Fault> {
        let lost = |error| fault::collective(&error);
        let store =
            ffi::store_connect(&rendezvous.host, rendezvous.port, TIMEOUT_MS).map_err(lost)?;
        let join = ffi::Join {
            prefix: &format!("gen{}", generation.0),
            rank: rank as i32,
            size: world_size as i32,
            nccl: matches!(device, Device::Cuda(_)),
            host: &own_address(rendezvous),
            timeout_ms: TIMEOUT_MS,
        };
        let group = ffi::group_new(&store, &join).map_err(lost)?;
        Ok(Self {
            ranks: Some(group),
            _store: Some(store),
            rank,
            world_size,
            device,
        })
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Ranks in the group.
    pub fn world_size(&self) -> u32 {
        self.world_size
    }

    /// Sums `values` over the ranks, in f64.
    pub fn sum(&self, values: &mut [f64]) -> Result<(), Fault> {
        if self.ranks.is_none() {
            return Ok(());
        }
        let tensor = Tensor::from_slice(values).to_device(self.device);
        self.sum_tensor(&tensor)?;
        tensor.copy_data(values, values.len());
        Ok(())
    }

    /// Sums a tensor over the ranks in place.
    pub fn sum_tensor(&self, tensor: &Tensor) -> Result<(), Fault> {
        match &self.ranks {
            Some(group) => ffi::sum(group, tensor).map_err(|error| fault::collective(&error)),
            None => Ok(()),
        }
    }

    /// Gives every rank rank 0's values, in place.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<(), Fault> {
        match &self.ranks {
            Some(group) if !tensors.is_empty() => {
                ffi::broadcast(group, tensors, 0).map_err(|error| fault::collective(&error))
            }
            _ => Ok(()),
        }
    }

    /// Whether every rank has this digest.
    pub fn agree(&self, digest: Digest) -> Result<bool, Fault> {
        let Some(group) = &self.ranks else {
            return Ok(true);
        };
        let mine = Tensor::from_slice(&digest.0).to_device(self.device);
        let world = i64::from(self.world_size);
        let all = Tensor::zeros([world * mine.size()[0]], (Kind::Uint8, self.device));
        ffi::gather(group, &all, &mine).map_err(|error| fault::collective(&error))?;
        let rows = all.reshape([world, -1]);
        Ok(rows.eq_tensor(&mine).all().int64_value(&[]) == 1)
    }

    /// A reducer for `parameters`, none for a group of one.
    ///
    /// c10d makes its buckets anew after the first backward, in the order in which gradients came.
    /// One backward of zeros is run here, so that they are the same whether a trial starts or
    /// resumes: sums over more than two ranks depend on the place in a bucket.
    pub fn reducer(&self, parameters: &[Tensor]) -> Result<Option<Reducer>, Fault> {
        let Some(group) = self.ranks.as_ref().filter(|_| !parameters.is_empty()) else {
            return Ok(None);
        };
        let reducer = ffi::reducer_new(group, parameters, FIRST_BUCKET_BYTES, BUCKET_BYTES)
            .map_err(|error| fault::collective(&error))?;
        let reducer = Reducer(reducer);
        reducer.before_forward()?;
        let zero = zero_loss(parameters);
        reducer.before_backward()?;
        zero.f_backward().map_err(|error| fault::torch(&error))?;
        ffi::gradients_forget(parameters).map_err(|error| fault::from_exception(&error))?;
        Ok(Some(reducer))
    }
}

/// A loss of zero that touches every parameter: what an empty rank contributes.
pub fn zero_loss(parameters: &[Tensor]) -> Tensor {
    let sums: Vec<Tensor> = parameters
        .iter()
        .map(|parameter| (parameter * 0.0).sum(parameter.kind()))
        .collect();
    Tensor::stack(&sums, 0).sum(Kind::Float)
}

/// c10d's reducer (Li et al. 2020, PyTorch Distributed): averages gradients in buckets while
/// backward runs.
pub struct Reducer(UniquePtr<ffi::Reducer>);

impl Reducer {
    /// Before the forward pass of a step whose gradients are averaged.
    pub fn before_forward(&self) -> Result<(), Fault> {
        self.0
            .before_forward()
            .map_err(|error| fault::collective(&error))
    }

    /// Between the forward pass and backward.
    pub fn before_backward(&self) -> Result<(), Fault> {
        self.0
            .before_backward()
            .map_err(|error| fault::collective(&error))
    }
}
