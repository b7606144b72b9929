// Batch norm and (leaky) ReLU in two passes over memory, for bfloat16 activations on a CPU.
//
// Tensors are seen as (rows, channels), which is what channels_last is: rows = N * H * W.
// `channels` is a multiple of LANES. All arithmetic is float32; sums over chunks are double.
//
// Plain C ABI and no torch header: it compiles in about a second, and loads with any torch.
// Vectors are the GCC and Clang extension, not intrinsics, so any CPU that they know will do.
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t LANES = 16;
// Rows summed in float32 before a double takes over. Fixed, so that the result depends neither on
// the number of threads nor on their schedule.
constexpr int64_t CHUNK = 256;

typedef float f32v __attribute__((vector_size(4 * LANES)));
typedef uint32_t u32v __attribute__((vector_size(4 * LANES)));
typedef uint16_t u16v __attribute__((vector_size(2 * LANES)));

inline f32v load(const float* p) {
  f32v v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, f32v v) { std::memcpy(p, &v, sizeof v); }

inline f32v load(const uint16_t* p) {
  u16v half;
  std::memcpy(&half, p, sizeof half);
  return (f32v)(__builtin_convertvector(half, u32v) << 16);
}

// Round to nearest, ties to even, as torch does; NaN stays NaN.
inline void store(uint16_t* p, f32v v) {
  const u32v bits = (u32v)v;
  const u32v rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const u32v nan = (u32v)(v != v);
  const u16v half = __builtin_convertvector((rounded & ~nan) | (nan & 0x7fc0u), u16v);
  std::memcpy(p, &half, sizeof half);
}

// d where x * scale + shift > 0, else d * slope. With d = x * scale + shift it is the activation,
// with d = dL/dy its gradient. Comparing with > sends NaN to the second branch, which keeps it.
inline f32v activate(f32v d, f32v x, f32v scale, f32v shift, float slope) {
  const u32v positive = (u32v)(x * scale + shift > 0.0f);
  return (f32v)((positive & (u32v)d) | (~positive & (u32v)(d * slope)));
}

// sums: (2, channels) from partial: (chunks, 2, channels), in the order of the chunks.
void add_up(const std::vector<float>& partial, float* sums, int64_t channels) {
  const int64_t width = 2 * channels, chunks = (int64_t)partial.size() / width;
  std::vector<double> total(width, 0.0);
  for (int64_t k = 0; k < chunks; ++k)
    for (int64_t j = 0; j < width; ++j) total[j] += partial[k * width + j];
  for (int64_t j = 0; j < width; ++j) sums[j] = (float)total[j];
}

}  // namespace

extern "C" {

// sums: (2, channels) <- sum of x, sum of x * x.
void faussaire_norm_sums(const uint16_t* x, float* sums, int64_t rows, int64_t channels,
                         int threads) {
  const int64_t chunks = (rows + CHUNK - 1) / CHUNK;
  std::vector<float> partial(chunks * 2 * channels);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t k = 0; k < chunks; ++k) {
    const int64_t first = k * CHUNK, last = first + CHUNK < rows ? first + CHUNK : rows;
    for (int64_t j = 0; j < channels; j += LANES) {
      f32v sum0 = {}, square0 = {}, sum1 = {}, square1 = {};  // two chains hide the latency
      int64_t i = first;
      for (; i + 1 < last; i += 2) {
        const f32v a = load(x + i * channels + j), b = load(x + (i + 1) * channels + j);
        sum0 += a, square0 += a * a;
        sum1 += b, square1 += b * b;
      }
      if (i < last) {
        const f32v a = load(x + i * channels + j);
        sum0 += a, square0 += a * a;
      }
      store(&partial[2 * k * channels + j], sum0 + sum1);
      store(&partial[(2 * k + 1) * channels + j], square0 + square1);
    }
  }
  add_up(partial, sums, channels);
}

// y <- activation(x * scale + shift).
void faussaire_norm_apply(const uint16_t* x, const float* scale, const float* shift, float slope,
                          uint16_t* y, int64_t rows, int64_t channels, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < channels; j += LANES) {
      const f32v a = load(x + i * channels + j), s = load(scale + j), t = load(shift + j);
      store(y + i * channels + j, activate(a * s + t, a, s, t, slope));
    }
}

// sums: (2, channels) <- sum of g, sum of g * (x - mean), where g = dL/d(x * scale + shift).
void faussaire_norm_backward_sums(const uint16_t* dy, const uint16_t* x, const float* scale,
                                  const float* shift, const float* mean, float slope, float* sums,
                                  int64_t rows, int64_t channels, int threads) {
  const int64_t chunks = (rows + CHUNK - 1) / CHUNK;
  std::vector<float> partial(chunks * 2 * channels);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t k = 0; k < chunks; ++k) {
    const int64_t first = k * CHUNK, last = first + CHUNK < rows ? first + CHUNK : rows;
    for (int64_t j = 0; j < channels; j += LANES) {
      const f32v s = load(scale + j), t = load(shift + j), m = load(mean + j);
      f32v sum = {}, product = {};
      for (int64_t i = first; i < last; ++i) {
        const f32v a = load(x + i * channels + j);
        const f32v g = activate(load(dy + i * channels + j), a, s, t, slope);
        sum += g, product += g * (a - m);
      }
      store(&partial[2 * k * channels + j], sum);
      store(&partial[(2 * k + 1) * channels + j], product);
    }
  }
  add_up(partial, sums, channels);
}

// dx <- g * scale + x * along + offset, with g as above.
void faussaire_norm_backward_apply(const uint16_t* dy, const uint16_t* x, const float* scale,
                                   const float* shift, const float* along, const float* offset,
                                   float slope, uint16_t* dx, int64_t rows, int64_t channels,
                                   int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < channels; j += LANES) {
      const f32v a = load(x + i * channels + j), s = load(scale + j);
      const f32v g = activate(load(dy + i * channels + j), a, s, load(shift + j), slope);
      store(dx + i * channels + j, g * s + a * load(along + j) + load(offset + j));
    }
}

}  // extern "C"
