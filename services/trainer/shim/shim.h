// What Rust sees of libtorch's c10d and of its fused optimisers. Tensors are borrowed `at::Tensor*`
// as tch holds them. Every function may throw; cxx turns that into a Rust error.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include "rust/cxx.h"

namespace at {
class Tensor;
}

namespace pomona {

using Tensor = at::Tensor;

class Store {
 public:
  struct Impl;
  std::unique_ptr<Impl> impl;
  explicit Store(std::unique_ptr<Impl> i);
  ~Store();
  uint16_t port() const;
};

class Group {
 public:
  struct Impl;
  std::unique_ptr<Impl> impl;
  explicit Group(std::unique_ptr<Impl> i);
  ~Group();
  void sum(Tensor* tensor) const;
  void gather(Tensor* out, Tensor* in) const;
  void broadcast(rust::Slice<Tensor* const> tensors, int32_t root) const;
};

class Reducer {
 public:
  struct Impl;
  std::unique_ptr<Impl> impl;
  explicit Reducer(std::unique_ptr<Impl> i);
  ~Reducer();
  void before_forward() const;
  void before_backward() const;
};

// A convolution with what follows it, prepared for inference; see `prefix.cc`.
class Convolution {
 public:
  struct Impl;
  std::unique_ptr<Impl> impl;
  explicit Convolution(std::unique_ptr<Impl> i);
  ~Convolution();
  // A new tensor, which the caller owns. `residual` may be null.
  Tensor* run(Tensor* x, Tensor* residual) const;
};
// `weight` is [out, in / groups, height, width]; `padding` is (height, width); the result is clamped
// to 0..`high`, or left as it is when `high` is negative.
std::unique_ptr<Convolution> convolution_new(Tensor* weight, Tensor* bias, int64_t stride,
                                             std::array<int64_t, 2> padding, int64_t groups,
                                             double high);
// Whether this processor has the instructions of the Winograd kernels.
bool has_winograd();

// Serves on `listener`, a bound socket that becomes the store's.
std::unique_ptr<Store> store_serve(rust::Str host, uint16_t port, int32_t listener,
                                   uint64_t timeout_ms);
std::unique_ptr<Store> store_connect(rust::Str host, uint16_t port, uint64_t timeout_ms);
std::unique_ptr<Group> group_new(const Store& store, rust::Str prefix, int32_t rank, int32_t size,
                                 bool nccl, rust::Str host, uint64_t timeout_ms);
std::unique_ptr<Reducer> reducer_new(const Group& group, rust::Slice<Tensor* const> parameters,
                                     int64_t first_bucket_bytes, int64_t bucket_bytes);

void gradients_forget(rust::Slice<Tensor* const> parameters);
void gradients_give(rust::Slice<Tensor* const> parameters, rust::Slice<Tensor* const> gradients);
void sgd_step(rust::Slice<Tensor* const> parameters, rust::Slice<Tensor* const> momenta, double lr,
              double momentum, double weight_decay);
void adamw_step(rust::Slice<Tensor* const> parameters, rust::Slice<Tensor* const> first,
                rust::Slice<Tensor* const> second, Tensor* step, double lr, double beta1,
                double beta2, double eps, double weight_decay);
// Freed memory stays with the process: a step frees and takes the same megabytes again, and every
// page given back costs a fault when it returns.
void keep_freed_memory();
// GPU arithmetic that repeats: deterministic kernels or an error, no timing of candidates, and f32
// that is f32 (libtorch's default lets convolutions round to TF32).
void exact_on_gpu();
// Ends the process without running libtorch's destructors, which crash under a thread at work.
void exit_at_once(int32_t status);
rust::String gpu_name(int32_t device);
rust::String cpu_capability();
rust::String torch_version();

}  // namespace pomona
