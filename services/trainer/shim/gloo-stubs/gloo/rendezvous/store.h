// Own declaration stub: only what torch's ProcessGroupGloo.hpp names. No code of it is emitted.
#pragma once
#include <chrono>
#include <string>
#include <vector>
namespace gloo {
namespace rendezvous {
// Base of GlooStore, which the shim never makes or calls. The constructor is declared and never
// defined: using it fails to link.
class Store {
 public:
  Store();
  virtual ~Store() = default;
  virtual void set(const std::string&, const std::vector<char>&) = 0;
  virtual std::vector<char> get(const std::string&) = 0;
  virtual void wait(const std::vector<std::string>&) = 0;
  virtual void wait(const std::vector<std::string>&, const std::chrono::milliseconds&) = 0;
};
}  // namespace rendezvous
}  // namespace gloo
