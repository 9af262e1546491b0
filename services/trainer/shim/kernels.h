// Winograd convolutions: see `kernels.cc`. Plain pointers, no libtorch.
#pragma once
#include <cstdint>

namespace pomona::kernels {

// A pass over images [N, H, W, C], channels together. Zeros lie around the image.
struct Shape {
  int64_t images, height, width, in, out_height, out_width, out;
  int64_t top, left;
};

// What follows a convolution: + bias, + residual (or null), then clamped to low..high.
struct After {
  const float* bias;
  const float* residual;
  float low, high;
};

// Whether this processor has what the kernels below are written in.
bool can_run();

// Channels that a Winograd convolution wants a multiple of.
constexpr int64_t kInputLanes = 16, kOutputLanes = 32;
// Values of a transformed kernel.
int64_t winograd_weights(int64_t in, int64_t out);
// [out, in, 3, 3] → what `winograd` reads.
void winograd_prepare(const float* weight, int64_t in, int64_t out, float* to);
// Tiles of 4×4 outputs in all images.
int64_t winograd_tiles(const Shape& shape);
// Tiles that are computed together, and the values of scratch (64-byte aligned) that takes.
int64_t winograd_block(const Shape& shape);
int64_t winograd_scratch(const Shape& shape);
// 3×3, stride 1: tiles from..to, at most a block of them.
void winograd(const Shape& shape, const float* x, const float* weights, const After& after,
              float* scratch, int64_t from, int64_t to, float* y);

}  // namespace pomona::kernels
