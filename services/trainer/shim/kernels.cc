// Winograd's minimal filtering F(4×4, 3×3) (Lavin and Gray 2016) for processors with AVX-512: 36
// multiplications where a direct 3×3 convolution takes 144. oneDNN has it no more.
#include "kernels.h"

#include <algorithm>

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,fma")
#endif

namespace pomona::kernels {

static constexpr int64_t kLanes = 16;   // floats of a register
static constexpr int64_t kRows = 14;    // tiles of the innermost product: 28 sums stay in registers
static constexpr int64_t kSide = 6;     // of an input tile
static constexpr int64_t kOut = 4;      // of an output tile
static constexpr int64_t kPlaces = kSide * kSide;

using Vector = __m512;

static inline Vector fma(float factor, Vector x, Vector sum) {
  return _mm512_fmadd_ps(_mm512_set1_ps(factor), x, sum);
}

// Bᵀd for one column of six.
static inline void in_transform(const Vector d[6], Vector t[6]) {
  Vector even = fma(-4, d[2], d[4]), odd = fma(-4, d[1], d[3]);
  Vector near = d[4] - d[2], far = d[3] - d[1];
  t[0] = fma(4, d[0], fma(-5, d[2], d[4]));
  t[1] = even + odd;
  t[2] = even - odd;
  t[3] = fma(2, far, near);
  t[4] = fma(-2, far, near);
  t[5] = fma(4, d[1], fma(-5, d[3], d[5]));
}

// Aᵀm for one column of six.
static inline void out_transform(const Vector m[6], Vector y[4]) {
  Vector s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
  y[0] = m[0] + s1 + s2;
  y[1] = fma(2, d2, d1);
  y[2] = fma(4, s2, s1);
  y[3] = fma(8, d2, d1) + m[5];
}

// c[j][i] = Σₖ a[k / 16][i][k % 16] · b[k][j], for M tiles i and 32 channels j. `a` and `c` hold
// `tiles` rows of 16 for each 16 channels.
template <int M>
static void product(const float* a, const float* b, int64_t groups, int64_t tiles, float* c) {
  Vector left[M], right[M];
#pragma GCC unroll 14
  for (int i = 0; i < M; i++) left[i] = right[i] = _mm512_setzero_ps();
  for (int64_t group = 0; group < groups; group++) {
    for (int64_t k = 0; k < kLanes; k++) {
      Vector b0 = _mm512_load_ps(b), b1 = _mm512_load_ps(b + kLanes);
      b += 2 * kLanes;
#pragma GCC unroll 14
      for (int i = 0; i < M; i++) {
        Vector value = _mm512_set1_ps(a[i * kLanes + k]);
        left[i] = _mm512_fmadd_ps(value, b0, left[i]);
        right[i] = _mm512_fmadd_ps(value, b1, right[i]);
      }
    }
    a += tiles * kLanes;
  }
#pragma GCC unroll 14
  for (int i = 0; i < M; i++) {
    _mm512_store_ps(c + i * kLanes, left[i]);
    _mm512_store_ps(c + (tiles + i) * kLanes, right[i]);
  }
}

using Product = void (*)(const float*, const float*, int64_t, int64_t, float*);
static constexpr Product kProducts[kRows + 1] = {
    nullptr,    product<1>, product<2>,  product<3>,  product<4>,  product<5>,  product<6>, product<7>,
    product<8>, product<9>, product<10>, product<11>, product<12>, product<13>, product<14>};

struct Tile {
  int64_t image, row, column;  // of its first output
};
static inline Tile tile_at(const Shape& s, int64_t index) {
  int64_t across = (s.out_width + kOut - 1) / kOut, down = (s.out_height + kOut - 1) / kOut;
  return {index / (across * down), index / across % down * kOut, index % across * kOut};
}

bool can_run() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma"); }

int64_t winograd_weights(int64_t in, int64_t out) { return kPlaces * in * out; }

// U = G g Gᵀ in doubles, as [place][out / 32][in][32].
void winograd_prepare(const float* weight, int64_t in, int64_t out, float* to) {
  static constexpr double g[6][3] = {{1.0 / 4, 0, 0},
                                     {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                     {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                     {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                     {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                     {0, 0, 1}};
  double factor[kPlaces][9];
  for (int64_t place = 0; place < kPlaces; place++)
    for (int tap = 0; tap < 9; tap++)
      factor[place][tap] = g[place / kSide][tap / 3] * g[place % kSide][tap % 3];
  int64_t panels = out / kOutputLanes;
  for (int64_t panel = 0; panel < panels; panel++) {
    for (int64_t i = 0; i < in; i++) {
      double taps[9][kOutputLanes];
      for (int64_t lane = 0; lane < kOutputLanes; lane++)
        for (int tap = 0; tap < 9; tap++)
          taps[tap][lane] = weight[((panel * kOutputLanes + lane) * in + i) * 9 + tap];
      for (int64_t place = 0; place < kPlaces; place++) {
        double sums[kOutputLanes] = {};
        for (int tap = 0; tap < 9; tap++)
          for (int64_t lane = 0; lane < kOutputLanes; lane++)
            sums[lane] += factor[place][tap] * taps[tap][lane];
        float* row = to + ((place * panels + panel) * in + i) * kOutputLanes;
        for (int64_t lane = 0; lane < kOutputLanes; lane++)
          row[lane] = static_cast<float>(sums[lane]);
      }
    }
  }
}

int64_t winograd_tiles(const Shape& s) {
  return s.images * ((s.out_width + kOut - 1) / kOut) * ((s.out_height + kOut - 1) / kOut);
}
// Few enough that both transforms stay near the processor, many enough that the weights, which
// stream by, are worth it.
int64_t winograd_block(const Shape& s) {
  int64_t rows = s.in + s.out <= 256 ? 4 : 12;
  return std::min(rows * kRows, winograd_tiles(s));
}
int64_t winograd_scratch(const Shape& s) { return kPlaces * winograd_block(s) * (s.in + s.out); }

// V[place][channel / 16][tile][16] = Bᵀ d B.
static void transform_inputs(const Shape& s, const float* x, int64_t from, int64_t count, float* v) {
  int64_t groups = s.in / kLanes;
  for (int64_t group = 0; group < groups; group++) {
    for (int64_t t = 0; t < count; t++) {
      Tile tile = tile_at(s, from + t);
      int64_t top = tile.row - s.top, left = tile.column - s.left;
      Vector half[kSide][kSide];
      for (int64_t column = 0; column < kSide; column++) {
        Vector d[kSide];
        bool inside = left + column >= 0 && left + column < s.width;
#pragma GCC unroll 6
        for (int64_t row = 0; row < kSide; row++) {
          bool there = inside && top + row >= 0 && top + row < s.height;
          const float* at =
              x + ((tile.image * s.height + top + row) * s.width + left + column) * s.in;
          d[row] = there ? _mm512_loadu_ps(at + group * kLanes) : _mm512_setzero_ps();
        }
        Vector t6[kSide];
        in_transform(d, t6);
#pragma GCC unroll 6
        for (int64_t row = 0; row < kSide; row++) half[row][column] = t6[row];
      }
      for (int64_t row = 0; row < kSide; row++) {
        Vector t6[kSide];
        in_transform(half[row], t6);
#pragma GCC unroll 6
        for (int64_t column = 0; column < kSide; column++)
          _mm512_store_ps(v + (((row * kSide + column) * groups + group) * count + t) * kLanes,
                          t6[column]);
      }
    }
  }
}

// y = Aᵀ M A, and what follows.
static void transform_outputs(const Shape& s, const float* m, const After& after, int64_t from,
                              int64_t count, float* y) {
  int64_t groups = s.out / kLanes;
  Vector low = _mm512_set1_ps(after.low), high = _mm512_set1_ps(after.high);
  for (int64_t group = 0; group < groups; group++) {
    Vector bias = _mm512_loadu_ps(after.bias + group * kLanes);
    for (int64_t t = 0; t < count; t++) {
      Tile tile = tile_at(s, from + t);
      int64_t rows = std::min(kOut, s.out_height - tile.row);
      int64_t columns = std::min(kOut, s.out_width - tile.column);
      Vector half[kOut][kSide];
      for (int64_t column = 0; column < kSide; column++) {
        Vector m6[kSide], y4[kOut];
#pragma GCC unroll 6
        for (int64_t row = 0; row < kSide; row++)
          m6[row] = _mm512_load_ps(
              m + (((row * kSide + column) * groups + group) * count + t) * kLanes);
        out_transform(m6, y4);
#pragma GCC unroll 4
        for (int64_t row = 0; row < kOut; row++) half[row][column] = y4[row];
      }
      for (int64_t row = 0; row < rows; row++) {
        Vector y4[kOut];
        out_transform(half[row], y4);
        int64_t at = ((tile.image * s.out_height + tile.row + row) * s.out_width + tile.column) *
                         s.out + group * kLanes;
        for (int64_t column = 0; column < columns; column++, at += s.out) {
          Vector sum = y4[column] + bias;
          if (after.residual) sum = sum + _mm512_loadu_ps(after.residual + at);
          _mm512_storeu_ps(y + at, _mm512_min_ps(_mm512_max_ps(sum, low), high));
        }
      }
    }
  }
}

void winograd(const Shape& s, const float* x, const float* weights, const After& after,
              float* scratch, int64_t from, int64_t to, float* y) {
  int64_t count = to - from, groups = s.in / kLanes, panels = s.out / kOutputLanes;
  float *v = scratch, *m = scratch + kPlaces * count * s.in;
  transform_inputs(s, x, from, count, v);
  for (int64_t place = 0; place < kPlaces; place++) {
    for (int64_t panel = 0; panel < panels; panel++) {
      const float* b = weights + (place * panels + panel) * s.in * kOutputLanes;
      for (int64_t t = 0; t < count; t += kRows) {
        int64_t rows = std::min(kRows, count - t);
        kProducts[rows](v + (place * groups * count + t) * kLanes, b, groups, count,
                        m + ((place * panels + panel) * 2 * count + t) * kLanes);
      }
    }
  }
  transform_outputs(s, m, after, from, count, y);
}

}  // namespace pomona::kernels

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else

namespace pomona::kernels {
bool can_run() { return false; }
int64_t winograd_weights(int64_t, int64_t) { return 0; }
void winograd_prepare(const float*, int64_t, int64_t, float*) {}
int64_t winograd_tiles(const Shape&) { return 0; }
int64_t winograd_block(const Shape&) { return 1; }
int64_t winograd_scratch(const Shape&) { return 0; }
void winograd(const Shape&, const float*, const float*, const After&, float*, int64_t, int64_t,
              float*) {}
}  // namespace pomona::kernels

#endif
