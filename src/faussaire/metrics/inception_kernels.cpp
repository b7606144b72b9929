// Convolutions and pools for reading pictures with the FID Inception network on CPUs with AMX.
//
// AMX multiplies bf16 only. Each float is therefore kept as hi + lo, both bf16, which together hold 16
// bits of mantissa, and a product is three: hi*hi + hi*lo + lo*hi, summed in float32. What is dropped
// (lo*lo) is 2^-16 of a product or less.
//
// A tensor is (pixels, groups, {hi, lo}, 32 channels). A pixel has 128 bytes a group, and `pitch` bytes
// in all. Where a pixel lies is the caller's affair: a convolution reads pixel q + taps[t] for output
// row q, and writes it to pixel target[q], or nowhere where target[q] < 0. So padding, strides and
// concatenation cost nothing here: they are tables.

#include <immintrin.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

constexpr int kBlock = 32;       // output rows and columns of one block: 2 by 2 tiles of 16
constexpr int64_t kGroup = 128;  // bytes of 32 channels: 32 hi, 32 lo
constexpr int64_t kStep = 4096;  // bytes of weights for 32 inputs and 32 outputs: hi 2 tiles, lo 2 tiles
constexpr int64_t kChunkBytes = 1 << 19;  // of inputs that one thread works on: a part of its L2 cache

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
  TileConfig() {
    for (int i = 0; i < 8; ++i) bytes[i] = 64, rows[i] = 16;
  }
};

// 32 floats to 32 hi and 32 lo.
inline void split(__m512 a, __m512 b, char* to) {
  const __m512i hi = (__m512i)_mm512_cvtne2ps_pbh(b, a);
  const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(hi));
  const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(hi, 1));
  a = _mm512_sub_ps(a, _mm512_castsi512_ps(_mm512_slli_epi32(low, 16)));
  b = _mm512_sub_ps(b, _mm512_castsi512_ps(_mm512_slli_epi32(high, 16)));
  _mm512_store_si512(to, hi);
  _mm512_store_si512(to + 64, (__m512i)_mm512_cvtne2ps_pbh(b, a));
}

// Half of a group, 16 channels, as floats.
inline __m512 join(const char* from, int half) {
  const auto wide = [](const char* at) {
    const __m512i bits = _mm512_cvtepu16_epi32(_mm256_load_si256((const __m256i*)at));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
  };
  return _mm512_add_ps(wide(from + 32 * half), wide(from + 64 + 32 * half));
}

}  // namespace

extern "C" {

// Whether the system lets this process use the tile registers.
int faussaire_amx_allow() {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

// Ask for large pages: a tile's rows lie in as many pages as it has rows.
void faussaire_amx_large_pages(char* memory, int64_t bytes) {
  const auto page = (uintptr_t)1 << 21;
  const auto first = ((uintptr_t)memory + page - 1) & ~(page - 1);
  const auto last = ((uintptr_t)memory + bytes) & ~(page - 1);
  if (first < last) madvise((void*)first, last - first, MADV_HUGEPAGE);  // advice: failing costs speed
}

// max(convolution + bias, least): rows q of [0, count), `count` a multiple of 32.
void faussaire_amx_convolve(const char* in, int64_t in_pitch, const int32_t* taps, int tap_count,
                            int groups, const char* weights, const float* bias, float least, int panels,
                            char* out, int64_t out_pitch, const int32_t* target, int64_t count,
                            int threads) {
  const int64_t blocks = count / kBlock;
  const int64_t panel_bytes = (int64_t)tap_count * groups * kStep;
  // A chunk of blocks is read once per panel of 32 outputs: small enough to stay in the cache, many
  // enough to reuse the panel's weights and to share the work evenly.
  const int64_t fit = std::clamp<int64_t>(kChunkBytes / (kBlock * in_pitch), 2, 16);
  const int64_t chunk = std::clamp<int64_t>(blocks / (4 * threads), 1, fit);
  const int64_t chunks = (blocks + chunk - 1) / chunk;
#pragma omp parallel num_threads(threads)
  {
    const TileConfig config;
    _tile_loadconfig(&config);
    alignas(64) float sums[kBlock * kBlock];
#pragma omp for schedule(dynamic)
    for (int64_t c = 0; c < chunks; ++c) {
      const int64_t end = std::min((c + 1) * chunk, blocks);
      for (int p = 0; p < panels; ++p) {
        const __m512 bias0 = _mm512_loadu_ps(bias + p * 32);
        const __m512 bias1 = _mm512_loadu_ps(bias + p * 32 + 16);
        for (int64_t b = c * chunk; b < end; ++b) {
          const int32_t* to = target + b * kBlock;
          // A block of padding only: the sign bits say whether any row has a place to go.
          const __m512i both = _mm512_and_si512(_mm512_loadu_si512(to), _mm512_loadu_si512(to + 16));
          if (_mm512_movepi32_mask(both) == 0xffff) continue;
          const char* w = weights + p * panel_bytes;
          _tile_zero(0);
          _tile_zero(1);
          _tile_zero(2);
          _tile_zero(3);
          for (int t = 0; t < tap_count; ++t) {
            const char* a = in + (b * kBlock + taps[t]) * in_pitch;
            const char* a2 = a + 16 * in_pitch;
            for (int g = 0; g < groups; ++g, a += kGroup, a2 += kGroup, w += kStep) {
              _tile_loadd(4, a + 64, in_pitch);
              _tile_loadd(5, a2 + 64, in_pitch);
              _tile_loadd(6, w, 64);
              _tile_loadd(7, w + 1024, 64);
              _tile_dpbf16ps(0, 4, 6);
              _tile_dpbf16ps(1, 4, 7);
              _tile_dpbf16ps(2, 5, 6);
              _tile_dpbf16ps(3, 5, 7);
              _tile_loadd(4, a, in_pitch);
              _tile_loadd(5, a2, in_pitch);
              _tile_dpbf16ps(0, 4, 6);
              _tile_dpbf16ps(1, 4, 7);
              _tile_dpbf16ps(2, 5, 6);
              _tile_dpbf16ps(3, 5, 7);
              _tile_loadd(6, w + 2048, 64);
              _tile_loadd(7, w + 3072, 64);
              _tile_dpbf16ps(0, 4, 6);
              _tile_dpbf16ps(1, 4, 7);
              _tile_dpbf16ps(2, 5, 6);
              _tile_dpbf16ps(3, 5, 7);
            }
          }
          _tile_stored(0, sums, kBlock * 4);
          _tile_stored(1, sums + 16, kBlock * 4);
          _tile_stored(2, sums + 16 * kBlock, kBlock * 4);
          _tile_stored(3, sums + 16 * kBlock + 16, kBlock * 4);
          const __m512 least16 = _mm512_set1_ps(least);
          for (int r = 0; r < kBlock; ++r) {
            if (to[r] < 0) continue;
            const __m512 x = _mm512_add_ps(_mm512_load_ps(sums + r * kBlock), bias0);
            const __m512 y = _mm512_add_ps(_mm512_load_ps(sums + r * kBlock + 16), bias1);
            // In this order of operands NaN stays NaN.
            split(_mm512_max_ps(least16, x), _mm512_max_ps(least16, y),
                  out + to[r] * out_pitch + p * kGroup);
          }
        }
      }
    }
    _tile_release();
  }
}

// 3x3 pools: output pixel target[q] from pixels source[9 * q + i], those that are not < 0. The largest
// of them; or, where there is a bias, relu(mean + bias).
void faussaire_amx_pool(const char* in, int64_t in_pitch, const int32_t* source, int groups,
                        const float* bias, char* out, int64_t out_pitch, const int32_t* target,
                        int64_t count, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t q = 0; q < count; ++q) {
    const char* from[9];
    int taps = 0;
    for (int i = 0; i < 9; ++i)
      if (source[9 * q + i] >= 0) from[taps++] = in + source[9 * q + i] * in_pitch;
    const __m512 zero = _mm512_setzero_ps(), share = _mm512_set1_ps(1.0f / taps);
    char* to = out + target[q] * out_pitch;
    for (int g = 0; g < groups; ++g) {
      const int64_t at = g * kGroup;
      __m512 a = join(from[0] + at, 0), b = join(from[0] + at, 1);
      if (bias) {
        for (int i = 1; i < taps; ++i) {
          a = _mm512_add_ps(a, join(from[i] + at, 0));
          b = _mm512_add_ps(b, join(from[i] + at, 1));
        }
        a = _mm512_max_ps(zero, _mm512_fmadd_ps(a, share, _mm512_loadu_ps(bias + g * 32)));
        b = _mm512_max_ps(zero, _mm512_fmadd_ps(b, share, _mm512_loadu_ps(bias + g * 32 + 16)));
      } else {
        for (int i = 1; i < taps; ++i) {
          a = _mm512_max_ps(a, join(from[i] + at, 0));
          b = _mm512_max_ps(b, join(from[i] + at, 1));
        }
      }
      split(a, b, to + at);
    }
  }
}

// The mean of each picture's `pixels` pixels: out (n, 32 * groups).
void faussaire_amx_mean(const char* in, int64_t in_pitch, int groups, int64_t n, int64_t pixels,
                        float* out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n * groups; ++i) {
    const char* from = in + i / groups * pixels * in_pitch + i % groups * kGroup;
    __m512 a = _mm512_setzero_ps(), b = a;
    for (int64_t q = 0; q < pixels; ++q, from += in_pitch) {
      a = _mm512_add_ps(a, join(from, 0));
      b = _mm512_add_ps(b, join(from, 1));
    }
    const __m512 share = _mm512_set1_ps(1.0f / pixels);
    _mm512_storeu_ps(out + i * 32, _mm512_mul_ps(a, share));
    _mm512_storeu_ps(out + i * 32 + 16, _mm512_mul_ps(b, share));
  }
}

// The 27 inputs (3 channels of 3x3) of each output of the first convolution, of stride 2, as two groups:
// hi and lo, and what these leave of float32. Flat areas cancel in this layer, so errors show in it.
// pictures: n of 3 channels and side by side pixels, float, with strides in floats.
void faussaire_amx_patches(const float* pictures, int64_t to_picture, int64_t to_channel,
                           int64_t to_row, int64_t to_column, int64_t n, int64_t side, char* out,
                           int threads) {
  const int64_t half = (side - 3) / 2 + 1;
  alignas(64) int32_t offsets[32] = {};
  for (int i = 0; i < 27; ++i)
    offsets[i] = (int32_t)(i / 9 * to_channel + i / 3 % 3 * to_row + i % 3 * to_column);
  const __m512i first = _mm512_load_si512(offsets), second = _mm512_load_si512(offsets + 16);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < n * half; ++row) {
    const float* from = pictures + row / half * to_picture + row % half * 2 * to_row;
    char* to = out + row * half * 2 * kGroup;
    for (int64_t x = 0; x < half; ++x, from += 2 * to_column, to += 2 * kGroup) {
      const __m512 a = _mm512_i32gather_ps(first, from, 4);
      const __m512 b = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0x07ff, second, from, 4);
      split(a, b, to);
      split(_mm512_sub_ps(a, join(to, 0)), _mm512_sub_ps(b, join(to, 1)), to + kGroup);
    }
  }
}

}  // extern "C"
