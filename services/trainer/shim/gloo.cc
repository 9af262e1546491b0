// The Gloo backend. The only file that includes the declaration stubs.
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "internal.h"

namespace pomona {
BackendPtr make_gloo(const StorePtr& store, int rank, int size, const std::string& host,
                     std::chrono::milliseconds timeout) {
  auto options = c10::make_intrusive<c10d::ProcessGroupGloo::Options>(timeout);
  options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(host));
  options->threads = 2;
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);
}
}  // namespace pomona
