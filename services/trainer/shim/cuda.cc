// What needs CUDA's headers: the NCCL backend and a GPU's name. Compiled with the cargo feature
// `cuda` only.
#define USE_C10D_NCCL
#include <cuda_runtime_api.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "internal.h"

// As ATen/cuda/CUDAContextLight.h has it, whose other includes are not needed.
namespace at::cuda {
TORCH_CUDA_CPP_API cudaDeviceProp* getDeviceProperties(c10::DeviceIndex device);
}

namespace pomona {
std::string name_of_gpu(int device) {
  return at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(device))->name;
}

BackendPtr make_nccl(const StorePtr& store, int rank, int size, std::chrono::milliseconds timeout) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
}
}  // namespace pomona
