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
constexpr int kStepBytes = 2 * kTileBytes;     // of a panel
constexpr int kLinesPerStep = kStepBytes / 64;
constexpr int kCStride = kPanelCols * 4;

// Up to 32 rows: one pass over the panel, fetching a little ahead of the loads. The distance is in the same 4 KiB page
// most of the time, where it helps the hardware's streamer: 34 of 37 GB/s on two Xeon cores; a plain read loop gets 28.
constexpr int kNearBytes = 1024;

// More rows: passes of 32 rows over 16 KiB of the panel at a time, which stay in L1 from pass to pass; between them
// the sums rest in c. Meanwhile the next panel comes to L2, and each of its lines is asked for twice, the first time
// kEarlyBytes early: only so does the streamer keep enough misses in flight while L2 hits use the same fill buffers.
// At 64 rows: 25 of 37 GB/s; 16 with whole-panel passes and the next panel asked for once.
constexpr int kChunkSteps = 8;
constexpr int kEarlyBytes = 1536;

template <int kLines>
inline void FetchNear(const char* p) {
#pragma GCC unroll 32
  for (int i = 0; i < kLines; ++i) _mm_prefetch(p + 64 * i, _MM_HINT_T0);
}

template <int kLines>
inline void FetchFar(const char* p) {
#pragma GCC unroll 32
  for (int i = 0; i < kLines; ++i) {
    _mm_prefetch(p + kEarlyBytes + 64 * i, _MM_HINT_T1);
    _mm_prefetch(p + 64 * i, _MM_HINT_T1);
  }
}

// `steps` steps of one (kGroups = 1) or two row groups. `resume`: the sums continue from c.
template <int kGroups, int kNearLines, int kFarLines>
inline void GemmBlock(const char* a, int64_t group_bytes, const char* b, int64_t steps, bool resume, const char* ahead,
                      float* c) {
  if (resume) {
    _tile_loadd(0, c, kCStride);
    _tile_loadd(1, c + kTileCols, kCStride);
    if constexpr (kGroups == 2) {
      _tile_loadd(2, c + 16 * kPanelCols, kCStride);
      _tile_loadd(3, c + 16 * kPanelCols + kTileCols, kCStride);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kGroups == 2) {
      _tile_zero(2);
      _tile_zero(3);
    }
  }
  for (int64_t step = 0; step < steps; ++step) {
    if constexpr (kNearLines > 0) FetchNear<kNearLines>(b + kNearBytes);
    if constexpr (kFarLines > 0) FetchFar<kFarLines>(ahead + step * kFarLines * 64);
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_loadd(7, b + kTileBytes, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kGroups == 2) {
      _tile_loadd(5, a + group_bytes, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    a += kTileBytes;
    b += kStepBytes;
  }
  _tile_stored(0, c, kCStride);
  _tile_stored(1, c + kTileCols, kCStride);
  if constexpr (kGroups == 2) {
    _tile_stored(2, c + 16 * kPanelCols, kCStride);
    _tile_stored(3, c + 16 * kPanelCols + kTileCols, kCStride);
  }
}

// All passes of 32 rows over one chunk of the panel; each fetches its share of the next panel's chunk.
template <int kFarLines>
inline void GemmChunk(const char* a, int num_rows, const char* b, int64_t k_steps, int64_t first_step, const char* next,
                      float* c) {
  const int64_t group_bytes = k_steps * kTileBytes;
  const int64_t steps = k_steps - first_step < kChunkSteps ? k_steps - first_step : kChunkSteps;
  const char* const a_chunk = a + first_step * kTileBytes;
  const char* const b_chunk = b + first_step * kStepBytes;
  const char* ahead = next + first_step * kStepBytes;
  const char* const ahead_end = ahead + steps * kStepBytes;
  for (int r = 0; r < num_rows; r += 2 * kRowGroup) {
    const char* const rows = a_chunk + r / kRowGroup * group_bytes;
    float* const out = c + r * kPanelCols;
    const bool one_group = num_rows - r <= kRowGroup;
    const bool resume = first_step > 0;
    if (ahead >= ahead_end) {
      if (one_group) {
        GemmBlock<1, 0, 0>(rows, group_bytes, b_chunk, steps, resume, nullptr, out);
      } else {
        GemmBlock<2, 0, 0>(rows, group_bytes, b_chunk, steps, resume, nullptr, out);
      }
      continue;
    }
    if (one_group) {
      GemmBlock<1, 0, kFarLines>(rows, group_bytes, b_chunk, steps, resume, ahead, out);
    } else {
      GemmBlock<2, 0, kFarLines>(rows, group_bytes, b_chunk, steps, resume, ahead, out);
    }
    ahead += steps * kFarLines * 64;
  }
}

void GemmAmx(const uint16_t* a, int num_rows, const uint16_t* panel, const void* next, int64_t k_steps, float* c) {
  const char* const rows = reinterpret_cast<const char*>(a);
  const char* const b = reinterpret_cast<const char*>(panel);
  const int64_t group_bytes = k_steps * kTileBytes;
  if (num_rows <= kRowGroup) {
    ConfigureGemm(num_rows, 1);
    GemmBlock<1, kLinesPerStep, 0>(rows, group_bytes, b, k_steps, false, nullptr, c);
  } else if (num_rows <= 2 * kRowGroup) {
    ConfigureGemm(kRowGroup, num_rows - kRowGroup);
    GemmBlock<2, kLinesPerStep, 0>(rows, group_bytes, b, k_steps, false, nullptr, c);
  } else {
    // Whole groups: rows beyond num_rows are computed from what lies there, into places nobody reads.
    ConfigureGemm(kRowGroup, kRowGroup);
    const char* const ahead = static_cast<const char*>(next);
    // A last pass of one group is too short to fetch for, unless there are but two.
    const int passes = num_rows <= 3 * kRowGroup ? 2 : (num_rows + kRowGroup) / (2 * kRowGroup);
    for (int64_t step = 0; step < k_steps; step += kChunkSteps) {
      if (passes == 2) {
        GemmChunk<kLinesPerStep / 2>(rows, num_rows, b, k_steps, step, ahead, c);
      } else if (passes == 3) {
        GemmChunk<kLinesPerStep / 3 + 1>(rows, num_rows, b, k_steps, step, ahead, c);
      } else if (passes < 8) {
        GemmChunk<kLinesPerStep / 4>(rows, num_rows, b, k_steps, step, ahead, c);
      } else {
        GemmChunk<kLinesPerStep / 8>(rows, num_rows, b, k_steps, step, ahead, c);
      }
    }
  }
  _tile_release();
}
