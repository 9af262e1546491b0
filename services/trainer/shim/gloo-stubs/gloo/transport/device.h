// Own declaration stub: only ever used through std::shared_ptr.
#pragma once
namespace gloo {
namespace transport {
class Device;
}  // namespace transport
}  // namespace gloo
