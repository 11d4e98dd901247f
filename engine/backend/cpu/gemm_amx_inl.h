// bfloat16 GEMM on AMX tiles. Bytes = panel, flops = 2 * rows * panel elements. A core reads about 20 GB/s and
// multiplies 6 TFLOP/s, so a panel is bound by memory up to about 300 rows: what matters is that reads never pause.
//
// Rows are independent in a tile, so a row alone (a tile of one row) and a row among 16 get the same bits.

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// The compiler must see that the whole struct is read: GCC's own intrinsic names one pointer's worth of it.
inline void LoadTileConfig(const TileConfig& config) { __asm__ volatile("ldtilecfg %0" : : "m"(config)); }

// Tiles 0-3: sums of rows 0-15 and 16-31 times columns 0-15 and 16-31; 4, 5: A; 6, 7: B.
inline void ConfigureGemm(int rows0, int rows1) {
  TileConfig config;
  for (int t = 0; t < 8; ++t) config.row_bytes[t] = 64;
  config.rows[0] = config.rows[1] = config.rows[4] = static_cast<uint8_t>(rows0);
  config.rows[2] = config.rows[3] = config.rows[5] = static_cast<uint8_t>(rows1);
  config.rows[6] = config.rows[7] = 16;
  LoadTileConfig(config);
}

constexpr int kTileBytes = 1024;
constexpr int kCStride = kPanelCols * 4;

template <int kLines>
inline void PrefetchLines(const char* p) {
#pragma GCC unroll 32
  for (int i = 0; i < kLines; ++i) _mm_prefetch(p + 64 * i, _MM_HINT_T0);
}

// One row group of up to 16 rows (kGroups = 1) or two (2). Prefetches kLines lines per step from `ahead` on.
template <int kGroups, int kLines>
inline void GemmGroups(const uint16_t* a, const uint16_t* panel, int64_t k_steps, const char* ahead, float* c) {
  const char* a0 = reinterpret_cast<const char*>(a);
  const char* a1 = a0 + k_steps * kTileBytes;
  const char* b = reinterpret_cast<const char*>(panel);
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kGroups == 2) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t step = 0; step < k_steps; ++step) {
    PrefetchLines<kLines>(ahead);
    _tile_loadd(4, a0, 64);
    _tile_loadd(6, b, 64);
    _tile_loadd(7, b + kTileBytes, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kGroups == 2) {
      _tile_loadd(5, a1, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
      a1 += kTileBytes;
    }
    a0 += kTileBytes;
    b += 2 * kTileBytes;
    ahead += kLines * 64;
  }
  _tile_stored(0, c, kCStride);
  _tile_stored(1, c + kTileCols, kCStride);
  if constexpr (kGroups == 2) {
    _tile_stored(2, c + 16 * kPanelCols, kCStride);
    _tile_stored(3, c + 16 * kPanelCols + kTileCols, kCStride);
  }
}

#ifndef PF_NEAR
#define PF_NEAR 1024
#endif

void GemmAmx(const uint16_t* a, int num_rows, const uint16_t* panel, int64_t k_steps, float* c) {
  const char* const b = reinterpret_cast<const char*>(panel);
  const int64_t panel_bytes = k_steps * 2 * kTileBytes;
  const int passes = (num_rows + 31) / 32;
  for (int r = 0, pass = 0; r < num_rows; r += 32, ++pass) {
    const int left = num_rows - r;
    const uint16_t* const rows = a + r * k_steps * kStepK;
    float* const out = c + r * kPanelCols;
    if (left <= 16) {
      ConfigureGemm(left, 1);
      if (passes == 1) {
        GemmGroups<1, 32>(rows, panel, k_steps, b + PF_NEAR, out);
      } else if (passes == 2) {
        GemmGroups<1, 16>(rows, panel, k_steps, b + panel_bytes + pass * (panel_bytes / 2), out);
      } else {
        GemmGroups<1, 8>(rows, panel, k_steps, b + panel_bytes + pass * (panel_bytes / 4), out);
      }
    } else {
      ConfigureGemm(16, left >= 32 ? 16 : left - 16);
      if (passes == 1) {
        GemmGroups<2, 32>(rows, panel, k_steps, b + PF_NEAR, out);
      } else if (passes == 2) {
        GemmGroups<2, 16>(rows, panel, k_steps, b + panel_bytes + pass * (panel_bytes / 2), out);
      } else {
        GemmGroups<2, 8>(rows, panel, k_steps, b + panel_bytes + pass * (panel_bytes / 4), out);
      }
    }
  }
  _tile_release();
}
