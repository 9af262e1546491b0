// A convolution of a frozen network, prepared once and run many times: Winograd where it pays, else
// oneDNN with packed weights and with bias, residual and activation fused, else what libtorch has.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/relu.h>
#include <c10/core/GradMode.h>

#include <limits>
#include <mutex>
#include <optional>
#include <vector>

#include "kernels.h"
#include "shim.h"

namespace pomona {

using Operator = std::optional<c10::OperatorHandle>;

static const Operator& find(const char* name, const char* overload) {
  static const auto lookup = [](const char* n, const char* o) {
    return c10::Dispatcher::singleton().findSchema({n, o});
  };
  static const Operator pack = lookup("mkldnn::_reorder_convolution_weight", "");
  static const Operator plain = lookup("mkldnn::_convolution_pointwise", "");
  static const Operator binary = lookup("mkldnn::_convolution_pointwise", "binary");
  if (std::string_view(overload) == "binary") return binary;
  return std::string_view(name) == "pack" ? pack : plain;
}

static at::Tensor call(const Operator& op, torch::jit::Stack stack) {
  op->callBoxed(stack);
  return stack.at(0).toTensor();
}

struct Convolution::Impl {
  at::Tensor weight, bias;
  std::vector<int64_t> stride, padding, dilation{1, 1};
  int64_t groups;
  double high;
  bool winograd, onednn;
  // Weights in the order that the kernel reads.
  at::Tensor packed;
  std::once_flag once;

  bool clamps() const { return high >= 0; }
  bool has_relu() const { return high == std::numeric_limits<double>::infinity(); }
  at::Tensor by_libtorch(const at::Tensor& x, const at::Tensor* residual) const;
  at::Tensor by_onednn(const at::Tensor& x, const at::Tensor* residual);
  at::Tensor by_winograd(const at::Tensor& x, const at::Tensor* residual) const;
};

Convolution::Convolution(std::unique_ptr<Impl> i) : impl(std::move(i)) {}
Convolution::~Convolution() = default;

bool has_winograd() { return kernels::can_run(); }

std::unique_ptr<Convolution> convolution_new(Tensor* weight, Tensor* bias, int64_t stride,
                                             std::array<int64_t, 2> padding, int64_t groups,
                                             double high) {
  auto impl = std::make_unique<Convolution::Impl>();
  impl->weight = weight->detach();
  impl->bias = bias->detach();
  impl->stride = {stride, stride};
  impl->padding = {padding[0], padding[1]};
  impl->groups = groups;
  impl->high = high;
  const auto& w = impl->weight;
  bool cpu = w.device().is_cpu();
  impl->winograd = cpu && w.scalar_type() == at::kFloat && groups == 1 && stride == 1 &&
                   w.size(2) == 3 && w.size(3) == 3 && w.size(1) % kernels::kInputLanes == 0 &&
                   w.size(0) % kernels::kOutputLanes == 0 && kernels::can_run();
  impl->onednn = cpu && find("pack", "") && find("plain", "") && find("plain", "binary");
  if (impl->winograd) {
    auto flat = w.contiguous();
    // Registers of 64 bytes: libtorch aligns its memory so.
    impl->packed = at::empty({kernels::winograd_weights(w.size(1), w.size(0))}, w.options());
    kernels::winograd_prepare(flat.const_data_ptr<float>(), w.size(1), w.size(0),
                              impl->packed.mutable_data_ptr<float>());
    impl->weight.reset();
  }
  return std::make_unique<Convolution>(std::move(impl));
}

at::Tensor Convolution::Impl::by_libtorch(const at::Tensor& x, const at::Tensor* residual) const {
  auto y = at::convolution(x, weight, bias, stride, padding, dilation, false, {0, 0}, groups);
  if (residual) y.add_(*residual);
  if (has_relu()) return y.relu_();
  return clamps() ? y.clamp_(0, high) : y;
}

at::Tensor Convolution::Impl::by_onednn(const at::Tensor& x, const at::Tensor* residual) {
  // The order depends on the size of the images.
  std::call_once(once, [&] {
    packed = call(find("pack", ""), {weight, padding, stride, dilation, groups, x.sizes().vec()});
  });
  c10::List<std::optional<at::Scalar>> range;
  if (clamps() && !has_relu()) {
    range.push_back(at::Scalar(0.0));
    range.push_back(at::Scalar(high));
  }
  std::string after = !clamps() ? "none" : has_relu() ? "relu" : "hardtanh";
  if (!residual) {
    return call(find("plain", ""), {x, packed, bias, padding, stride, dilation, groups, after, range,
                                    std::string()});
  }
  c10::IValue unary = clamps() ? c10::IValue(after) : c10::IValue();
  return call(find("plain", "binary"), {x, *residual, packed, bias, padding, stride, dilation, groups,
                                        std::string("add"), c10::IValue(), unary, range, c10::IValue()});
}

at::Tensor Convolution::Impl::by_winograd(const at::Tensor& x, const at::Tensor* residual) const {
  auto last = at::MemoryFormat::ChannelsLast;
  auto from = x.contiguous(last);
  auto more = residual ? residual->contiguous(last) : at::Tensor();
  kernels::Shape shape{x.size(0), x.size(2), x.size(3), x.size(1), x.size(2) + 2 * padding[0] - 2,
                       x.size(3) + 2 * padding[1] - 2, bias.size(0), padding[0], padding[1]};
  auto y = at::empty({shape.images, shape.out, shape.out_height, shape.out_width},
                     x.options().memory_format(last));
  constexpr float kAll = std::numeric_limits<float>::infinity();
  kernels::After after{bias.const_data_ptr<float>(),
                       residual ? more.const_data_ptr<float>() : nullptr, clamps() ? 0 : -kAll,
                       clamps() ? static_cast<float>(high) : kAll};
  int64_t tiles = kernels::winograd_tiles(shape), block = kernels::winograd_block(shape);
  at::parallel_for(0, (tiles + block - 1) / block, 1, [&](int64_t begin, int64_t end) {
    auto scratch = at::empty({kernels::winograd_scratch(shape)}, x.options().memory_format(
                                                                     at::MemoryFormat::Contiguous));
    for (int64_t at = begin; at < end; at++)
      kernels::winograd(shape, from.const_data_ptr<float>(), packed.const_data_ptr<float>(), after,
                        scratch.mutable_data_ptr<float>(), at * block,
                        std::min(tiles, (at + 1) * block), y.mutable_data_ptr<float>());
  });
  return y;
}

Tensor* Convolution::run(Tensor* x, Tensor* residual) const {
  c10::AutoGradMode mode(false);
  if (impl->winograd) return new at::Tensor(impl->by_winograd(*x, residual));
  bool fused = impl->onednn && !(residual && impl->clamps() && !impl->has_relu());
  return new at::Tensor(fused ? impl->by_onednn(*x, residual) : impl->by_libtorch(*x, residual));
}

}  // namespace pomona
