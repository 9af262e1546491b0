//! The bridge to `shim/`: the only unsafe code of the project.
//!
//! A tensor crosses as the pointer that tch holds, which is an `at::Tensor*`; it is borrowed for
//! the call. It must never outlive it. Files are mapped here for the same reason.
#![expect(
    unsafe_code,
    missing_docs,
    clippy::missing_safety_doc,
    clippy::too_many_arguments,
    reason = "the c10d shim, whose functions take what libtorch takes; safe wrappers are in `dist`"
)]

#[cxx::bridge(namespace = "pomona")]
mod bridge {
    unsafe extern "C++" {
        include!("shim.h");

        #[namespace = "at"]
        type Tensor;
        type Store;
        type Group;
        type Reducer;
        type Convolution;

        fn store_serve(
            host: &str,
            port: u16,
            listener: i32,
            timeout_ms: u64,
        ) -> Result<UniquePtr<Store>>;
        fn store_connect(host: &str, port: u16, timeout_ms: u64) -> Result<UniquePtr<Store>>;
        fn port(self: &Store) -> u16;

        fn group_new(
            store: &Store,
            prefix: &str,
            rank: i32,
            size: i32,
            nccl: bool,
            host: &str,
            timeout_ms: u64,
        ) -> Result<UniquePtr<Group>>;
        unsafe fn sum(self: &Group, tensor: *mut Tensor) -> Result<()>;
        unsafe fn gather(self: &Group, out: *mut Tensor, input: *mut Tensor) -> Result<()>;
        unsafe fn broadcast(self: &Group, tensors: &[*mut Tensor], root: i32) -> Result<()>;

        unsafe fn reducer_new(
            group: &Group,
            parameters: &[*mut Tensor],
            first_bucket_bytes: i64,
            bucket_bytes: i64,
        ) -> Result<UniquePtr<Reducer>>;
        fn before_forward(self: &Reducer) -> Result<()>;
        fn before_backward(self: &Reducer) -> Result<()>;

        unsafe fn gradients_forget(parameters: &[*mut Tensor]) -> Result<()>;
        unsafe fn gradients_give(
            parameters: &[*mut Tensor],
            gradients: &[*mut Tensor],
        ) -> Result<()>;
        unsafe fn sgd_step(
            parameters: &[*mut Tensor],
            momenta: &[*mut Tensor],
            lr: f64,
            momentum: f64,
            weight_decay: f64,
        ) -> Result<()>;
        unsafe fn adamw_step(
            parameters: &[*mut Tensor],
            first: &[*mut Tensor],
            second: &[*mut Tensor],
            step: *mut Tensor,
            lr: f64,
            beta1: f64,
            beta2: f64,
            eps: f64,
            weight_decay: f64,
        ) -> Result<()>;
        unsafe fn convolution_new(
            weight: *mut Tensor,
            bias: *mut Tensor,
            stride: i64,
            padding: [i64; 2],
            groups: i64,
            high: f64,
        ) -> Result<UniquePtr<Convolution>>;
        unsafe fn run(
            self: &Convolution,
            x: *mut Tensor,
            residual: *mut Tensor,
        ) -> Result<*mut Tensor>;
        fn has_winograd() -> bool;
        fn keep_freed_memory();
        fn exact_on_gpu() -> Result<()>;
        fn exit_at_once(status: i32);
        fn gpu_name(device: i32) -> Result<String>;
        fn cpu_capability() -> Result<String>;
        fn torch_version() -> Result<String>;
    }
}

pub use bridge::{Convolution, Group, Reducer, Store};
use cxx::{Exception, UniquePtr};
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::IntoRawFd as _;

/// The bytes of a file, as they lie in the system's cache. For files that are replaced, never written
/// to, once they have their name: blobs.
pub fn map(file: &File) -> std::io::Result<bytes::Bytes> {
    // Of an empty file there is nothing to map.
    if file.metadata()?.len() == 0 {
        return Ok(bytes::Bytes::new());
    }
    // SAFETY: nobody writes to a blob, and who cuts it off ends this process by a signal.
    let mapped = unsafe { memmap2::Mmap::map(file) }?;
    Ok(bytes::Bytes::from_owner(mapped))
}

fn one(tensor: &tch::Tensor) -> *mut bridge::Tensor {
    tensor.as_ptr().cast_mut().cast()
}

fn many(tensors: &[tch::Tensor]) -> Vec<*mut bridge::Tensor> {
    tensors.iter().map(one).collect()
}

/// Serves on a bound socket, which becomes the store's.
pub fn store_serve(
    host: &str,
    port: u16,
    listener: TcpListener,
    timeout_ms: u64,
) -> Result<UniquePtr<Store>, Exception> {
    bridge::store_serve(host, port, listener.into_raw_fd(), timeout_ms)
}

pub fn store_connect(
    host: &str,
    port: u16,
    timeout_ms: u64,
) -> Result<UniquePtr<Store>, Exception> {
    bridge::store_connect(host, port, timeout_ms)
}

/// How a rank joins a group.
pub struct Join<'a> {
    pub prefix: &'a str,
    pub rank: i32,
    pub size: i32,
    pub nccl: bool,
    pub host: &'a str,
    pub timeout_ms: u64,
}

pub fn group_new(store: &Store, join: &Join<'_>) -> Result<UniquePtr<Group>, Exception> {
    bridge::group_new(
        store,
        join.prefix,
        join.rank,
        join.size,
        join.nccl,
        join.host,
        join.timeout_ms,
    )
}

// Each unsafe call below borrows live tensors for the length of the call, and the C++ side keeps
// what it needs by its own reference count.

pub fn sum(group: &Group, tensor: &tch::Tensor) -> Result<(), Exception> {
    unsafe { group.sum(one(tensor)) }
}

pub fn gather(group: &Group, out: &tch::Tensor, input: &tch::Tensor) -> Result<(), Exception> {
    unsafe { group.gather(one(out), one(input)) }
}

pub fn broadcast(group: &Group, tensors: &[tch::Tensor], root: i32) -> Result<(), Exception> {
    unsafe { group.broadcast(&many(tensors), root) }
}

pub fn reducer_new(
    group: &Group,
    parameters: &[tch::Tensor],
    first_bucket_bytes: i64,
    bucket_bytes: i64,
) -> Result<UniquePtr<Reducer>, Exception> {
    unsafe { bridge::reducer_new(group, &many(parameters), first_bucket_bytes, bucket_bytes) }
}

pub fn gradients_forget(parameters: &[tch::Tensor]) -> Result<(), Exception> {
    unsafe { bridge::gradients_forget(&many(parameters)) }
}

pub fn gradients_give(
    parameters: &[tch::Tensor],
    gradients: &[tch::Tensor],
) -> Result<(), Exception> {
    unsafe { bridge::gradients_give(&many(parameters), &many(gradients)) }
}

/// Numbers of an SGD step.
pub struct Sgd {
    pub lr: f64,
    pub momentum: f64,
    pub weight_decay: f64,
}

pub fn sgd_step(
    parameters: &[tch::Tensor],
    momenta: &[tch::Tensor],
    sgd: &Sgd,
) -> Result<(), Exception> {
    let (parameters, momenta) = (many(parameters), many(momenta));
    unsafe {
        bridge::sgd_step(
            &parameters,
            &momenta,
            sgd.lr,
            sgd.momentum,
            sgd.weight_decay,
        )
    }
}

/// Numbers of an AdamW step.
pub struct Adamw {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
}

pub fn adamw_step(
    parameters: &[tch::Tensor],
    first: &[tch::Tensor],
    second: &[tch::Tensor],
    step: &tch::Tensor,
    adamw: &Adamw,
) -> Result<(), Exception> {
    let (parameters, first, second) = (many(parameters), many(first), many(second));
    unsafe {
        bridge::adamw_step(
            &parameters,
            &first,
            &second,
            one(step),
            adamw.lr,
            adamw.beta1,
            adamw.beta2,
            adamw.eps,
            adamw.weight_decay,
        )
    }
}

/// A convolution to prepare, with what follows it.
pub struct Convolve<'a> {
    /// [out, in / groups, height, width].
    pub weight: &'a tch::Tensor,
    /// Of `out` values.
    pub bias: &'a tch::Tensor,
    pub stride: i64,
    /// Height and width.
    pub padding: [i64; 2],
    pub groups: i64,
    /// The result is clamped to 0..`high`.
    pub high: Option<f64>,
}

pub fn convolution_new(of: &Convolve<'_>) -> Result<UniquePtr<Convolution>, Exception> {
    let (weight, bias, high) = (one(of.weight), one(of.bias), of.high.unwrap_or(-1.0));
    unsafe { bridge::convolution_new(weight, bias, of.stride, of.padding, of.groups, high) }
}

/// The convolution of `x`, with `residual` added before it is clamped.
pub fn convolve(
    convolution: &Convolution,
    x: &tch::Tensor,
    residual: Option<&tch::Tensor>,
) -> Result<tch::Tensor, Exception> {
    let residual = residual.map_or(std::ptr::null_mut(), one);
    // The shim gives a new tensor away.
    unsafe {
        let made = convolution.run(one(x), residual)?;
        Ok(tch::Tensor::from_ptr(made.cast()))
    }
}

pub fn has_winograd() -> bool {
    bridge::has_winograd()
}

pub fn keep_freed_memory() {
    bridge::keep_freed_memory();
}

pub fn exact_on_gpu() -> Result<(), Exception> {
    bridge::exact_on_gpu()
}

pub fn exit_at_once(status: i32) -> ! {
    bridge::exit_at_once(status);
    unreachable!("the process is gone")
}

pub fn gpu_name(device: i32) -> Result<String, Exception> {
    bridge::gpu_name(device)
}

pub fn cpu_capability() -> String {
    bridge::cpu_capability().unwrap_or_default()
}

pub fn torch_version() -> String {
    bridge::torch_version().unwrap_or_default()
}
