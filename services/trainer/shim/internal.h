// What the shim's own files share.
#pragma once
#include <chrono>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace pomona {
using BackendPtr = c10::intrusive_ptr<c10d::Backend>;
using StorePtr = c10::intrusive_ptr<c10d::Store>;
BackendPtr make_gloo(const StorePtr& store, int rank, int size, const std::string& host,
                     std::chrono::milliseconds timeout);
BackendPtr make_nccl(const StorePtr& store, int rank, int size, std::chrono::milliseconds timeout);
std::string name_of_gpu(int device);
}  // namespace pomona
