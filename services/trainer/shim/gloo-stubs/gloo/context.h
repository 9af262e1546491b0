// Own declaration stub: only what torch's ProcessGroupGloo.hpp names. No code of it is emitted.
#pragma once
#include <chrono>
#include <memory>
#include <string>
#include <vector>
namespace gloo {
// Only ever used through std::shared_ptr.
class Context {
 public:
  Context() = delete;
  void setTimeout(std::chrono::milliseconds timeout);
};
namespace transport {
// Only ever used through std::unique_ptr.
class UnboundBuffer {
 public:
  UnboundBuffer() = delete;
  virtual ~UnboundBuffer() = 0;
};
}  // namespace transport
}  // namespace gloo
