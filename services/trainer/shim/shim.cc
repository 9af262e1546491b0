#include "shim.h"

#include <malloc.h>

#include <ATen/Context.h>
#include <ATen/Version.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <torch/version.h>

#include <cstdlib>
#include <limits>

#include "internal.h"

namespace pomona {

struct Store::Impl {
  c10::intrusive_ptr<c10d::TCPStore> store;
};
struct Group::Impl {
  StorePtr store;
  BackendPtr backend;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};
struct Reducer::Impl {
  std::unique_ptr<c10d::Reducer> reducer;
};

Store::Store(std::unique_ptr<Impl> i) : impl(std::move(i)) {}
Store::~Store() = default;
Group::Group(std::unique_ptr<Impl> i) : impl(std::move(i)) {}
Group::~Group() {
  try {
    impl.reset();
  } catch (...) {
  }
}
Reducer::Reducer(std::unique_ptr<Impl> i) : impl(std::move(i)) {}
Reducer::~Reducer() {
  try {
    impl.reset();
  } catch (...) {
  }
}

static std::string text(rust::Str s) { return std::string(s.data(), s.size()); }

// Collectives work on the storage; detaching lets leaf parameters be written in place.
static std::vector<at::Tensor> detached(rust::Slice<Tensor* const> tensors) {
  std::vector<at::Tensor> out;
  out.reserve(tensors.size());
  for (auto* t : tensors) out.push_back(t->detach());
  return out;
}

static std::unique_ptr<Store> store_new(rust::Str host, uint16_t port, std::optional<int> listener,
                                        uint64_t timeout_ms) {
  c10d::TCPStoreOptions options;
  options.port = port;
  options.isServer = listener.has_value();
  options.masterListenFd = listener;
  options.waitWorkers = false;
  options.timeout = std::chrono::milliseconds(timeout_ms);
  auto impl = std::make_unique<Store::Impl>();
  impl->store = c10::make_intrusive<c10d::TCPStore>(text(host), options);
  return std::make_unique<Store>(std::move(impl));
}
std::unique_ptr<Store> store_serve(rust::Str host, uint16_t port, int32_t listener,
                                   uint64_t timeout_ms) {
  return store_new(host, port, listener, timeout_ms);
}
std::unique_ptr<Store> store_connect(rust::Str host, uint16_t port, uint64_t timeout_ms) {
  return store_new(host, port, std::nullopt, timeout_ms);
}
uint16_t Store::port() const { return impl->store->getPort(); }

std::unique_ptr<Group> group_new(const Store& store, rust::Str prefix, int32_t rank, int32_t size,
                                 bool nccl, rust::Str host, uint64_t timeout_ms) {
  using PG = c10d::ProcessGroup;
  auto timeout = std::chrono::milliseconds(timeout_ms);
  StorePtr prefixed = c10::make_intrusive<c10d::PrefixStore>(text(prefix), store.impl->store);
  auto group = c10::make_intrusive<PG>(prefixed, rank, size);
  auto impl = std::make_unique<Group::Impl>();
  if (nccl) {
#ifdef POMONA_CUDA
    impl->backend = make_nccl(prefixed, rank, size, timeout);
    group->setDefaultBackend(PG::NCCL);
    group->setBackend(c10::DeviceType::CUDA, PG::NCCL, impl->backend);
#else
    TORCH_CHECK(false, "this trainer was built without the feature `cuda`");
#endif
  } else {
    impl->backend = make_gloo(prefixed, rank, size, text(host), timeout);
    group->setDefaultBackend(PG::GLOO);
    group->setBackend(c10::DeviceType::CPU, PG::GLOO, impl->backend);
  }
  group->setGroupName(text(prefix));
  impl->store = prefixed;
  impl->group = group;
  return std::make_unique<Group>(std::move(impl));
}
void Group::sum(Tensor* tensor) const {
  c10::AutoGradMode mode(false);
  std::vector<at::Tensor> tensors{tensor->detach()};
  c10d::AllreduceOptions options;
  options.reduceOp = c10d::ReduceOp::SUM;
  impl->group->allreduce(tensors, options)->wait();
}
void Group::gather(Tensor* out, Tensor* in) const {
  c10::AutoGradMode mode(false);
  auto to = out->detach(), from = in->detach();
  impl->group->_allgather_base(to, from)->wait();
}
void Group::broadcast(rust::Slice<Tensor* const> tensors, int32_t root) const {
  c10::AutoGradMode mode(false);
  auto list = detached(tensors);
  constexpr size_t kBufferBytes = 250 * 1024 * 1024;
  c10d::broadcast_coalesced(impl->group, list, kBufferBytes, root);
}

std::unique_ptr<Reducer> reducer_new(const Group& group, rust::Slice<Tensor* const> parameters,
                                     int64_t first_bucket_bytes, int64_t bucket_bytes) {
  std::vector<at::Tensor> list;
  for (auto* p : parameters) list.push_back(*p);
  std::vector<bool> sparse(list.size(), false);
  auto [buckets, limits] = c10d::compute_bucket_assignment_by_size(
      list, {static_cast<size_t>(first_bucket_bytes), static_cast<size_t>(bucket_bytes)}, sparse);
  // Gradients arrive from the output's side.
  std::reverse(buckets.begin(), buckets.end());
  c10d::verify_params_across_processes(group.impl->group, list, std::nullopt);
  auto impl = std::make_unique<Reducer::Impl>();
  impl->reducer = std::make_unique<c10d::Reducer>(
      list, buckets, group.impl->group, sparse, bucket_bytes, /*find_unused_parameters=*/false,
      /*gradient_as_bucket_view=*/false, std::unordered_map<size_t, std::string>{},
      first_bucket_bytes, /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false,
      std::vector<int64_t>{});
  return std::make_unique<Reducer>(std::move(impl));
}
void Reducer::before_forward() const {
  impl->reducer->prepare_for_forward();
  impl->reducer->rebuild_buckets();
}
void Reducer::before_backward() const { impl->reducer->prepare_for_backward({}); }

void gradients_forget(rust::Slice<Tensor* const> parameters) {
  for (auto* p : parameters) p->mutable_grad().reset();
}
void gradients_give(rust::Slice<Tensor* const> parameters, rust::Slice<Tensor* const> gradients) {
  TORCH_CHECK(parameters.size() == gradients.size(), "each parameter has one gradient");
  for (size_t i = 0; i < parameters.size(); ++i) {
    TORCH_CHECK(parameters[i]->sizes() == gradients[i]->sizes(), "a gradient has another shape");
    parameters[i]->mutable_grad() = *gradients[i];
  }
}
static std::vector<at::Tensor> gradients(rust::Slice<Tensor* const> parameters) {
  std::vector<at::Tensor> out;
  out.reserve(parameters.size());
  for (auto* p : parameters) {
    TORCH_CHECK(p->grad().defined(), "a trainable parameter has no gradient");
    out.push_back(p->grad());
  }
  return out;
}
void sgd_step(rust::Slice<Tensor* const> parameters, rust::Slice<Tensor* const> momenta, double lr,
              double momentum, double weight_decay) {
  c10::AutoGradMode mode(false);
  auto ps = detached(parameters), gs = gradients(parameters), ms = detached(momenta);
  at::_fused_sgd_(ps, gs, ms, weight_decay, momentum, lr, /*dampening=*/0.0, /*nesterov=*/false,
                  /*maximize=*/false, /*is_first_step=*/false);
}
void adamw_step(rust::Slice<Tensor* const> parameters, rust::Slice<Tensor* const> first,
                rust::Slice<Tensor* const> second, Tensor* step, double lr, double beta1,
                double beta2, double eps, double weight_decay) {
  c10::AutoGradMode mode(false);
  auto ps = detached(parameters), gs = gradients(parameters);
  auto m = detached(first), v = detached(second);
  std::vector<at::Tensor> steps(ps.size(), step->detach());
  at::_fused_adamw_(ps, gs, m, v, {}, steps, lr, beta1, beta2, weight_decay, eps,
                    /*amsgrad=*/false, /*maximize=*/false);
}
void keep_freed_memory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}
void exact_on_gpu() {
  auto& context = at::globalContext();
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);
  context.setDeterministicCuDNN(true);
  context.setBenchmarkCuDNN(false);
  context.setAllowTF32CuDNN(false);
  context.setAllowTF32CuBLAS(false);
}
void exit_at_once(int32_t status) { std::_Exit(status); }
rust::String gpu_name(int32_t device) {
#ifdef POMONA_CUDA
  return name_of_gpu(device);
#else
  TORCH_CHECK(false, "there is no GPU ", device, " for a trainer built without the feature `cuda`");
#endif
}
rust::String cpu_capability() { return at::get_cpu_capability(); }
rust::String torch_version() { return TORCH_VERSION; }

}  // namespace pomona
