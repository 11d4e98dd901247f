// bfloat16 GEMM on AMX tiles. Bytes = panel, flops = 2 * rows * panel elements. A core reads about 18 GB/s and
// multiplies 3 TFLOP/s, so a panel is bound by memory up to about 175 rows: what matters is that reads never pause.
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

// Tiles 0, 1: sums of 16 rows times columns 0-15 and 16-31; 2, 3: of the next 16 rows; 4, 5: A; 6, 7: B.
inline void ConfigureGemm(int rows) {
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    config.row_bytes[t] = 64;
    config.rows[t] = static_cast<uint8_t>(rows);
  }
  config.rows[6] = config.rows[7] = 16;
  LoadTileConfig(config);
}

constexpr int kTileBytes = 1024;
constexpr int kCStride = kPanelCols * 4;

// More than 32 rows: the panel is taken 8 KiB at a time, which stay in L1 from one pair of row groups to the next;
// between passes the sums rest in c. At 64 rows A, B and c of a pass fill 32 of L1's 48 KiB; with 16 KiB of panel they
// would fill 56.
constexpr int kPassSteps = 4;

// Fetching half a tile ahead, in both streams of the panel, gets 33 of the 36 GB/s that two Xeon cores can read; larger
// distances lose to the lines of A that come from L2 through the same fill buffers. At 64 rows 29 GB/s are left.
constexpr int kAheadBytes = 512;

inline void FetchTile(const char* b) {
#pragma GCC unroll 16
  for (int i = 0; i < kTileBytes; i += 64) _mm_prefetch(b + kAheadBytes + i, _MM_HINT_T0);
}

// c (+)= `steps` steps of one or two row groups. `b`: columns 0-15; `other_cols` bytes behind, columns 16-31. `resume`:
// the sums continue from c. `kFetch`: b comes from memory and not from L1.
template <int kGroups, bool kFetch>
inline void GemmTiles(const char* a, int64_t group_bytes, const char* b, int64_t other_cols, int64_t steps, bool resume,
                      float* c) {
  constexpr int kGroupFloats = kRowGroup * kPanelCols;
  if (resume) {
    _tile_loadd(0, c, kCStride);
    _tile_loadd(1, c + kTileCols, kCStride);
    if constexpr (kGroups == 2) {
      _tile_loadd(2, c + kGroupFloats, kCStride);
      _tile_loadd(3, c + kGroupFloats + kTileCols, kCStride);
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
    if constexpr (kFetch) {
      FetchTile(b);
      FetchTile(b + other_cols);
    }
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + other_cols, 64);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kGroups == 2) {
      _tile_loadd(5, a + group_bytes, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    a += kTileBytes;
    b += kTileBytes;
  }
  _tile_stored(0, c, kCStride);
  _tile_stored(1, c + kTileCols, kCStride);
  if constexpr (kGroups == 2) {
    _tile_stored(2, c + kGroupFloats, kCStride);
    _tile_stored(3, c + kGroupFloats + kTileCols, kCStride);
  }
}

// `steps` steps of whole row groups, except one alone: rows beyond num_rows are computed from what lies there, into
// places nobody reads. kFetch: as above, for the groups that come first. Strides are those of the whole rows and panel.
template <bool kFetch>
inline void GemmPass(const char* a, int64_t group_bytes, int num_rows, const char* b, int64_t other_cols, int64_t steps,
                     bool resume, float* c) {
  if (num_rows <= kRowGroup) return GemmTiles<1, kFetch>(a, group_bytes, b, other_cols, steps, resume, c);
  GemmTiles<2, kFetch>(a, group_bytes, b, other_cols, steps, resume, c);
  for (int r = 2 * kRowGroup; r < num_rows; r += 2 * kRowGroup) {
    a += 2 * group_bytes;
    if (num_rows - r > kRowGroup) {
      GemmTiles<2, false>(a, group_bytes, b, other_cols, steps, resume, c + r * kPanelCols);
    } else {
      GemmTiles<1, false>(a, group_bytes, b, other_cols, steps, resume, c + r * kPanelCols);
    }
  }
}

void GemmAmx(const uint16_t* a, int num_rows, const uint16_t* panel, int64_t k_steps, float* c) {
  const int64_t stream_bytes = k_steps * kTileBytes;  // of 16 rows of A, and of 16 columns of B
  const int64_t pass_steps = num_rows <= 2 * kRowGroup ? k_steps : kPassSteps;
  ConfigureGemm(num_rows < kRowGroup ? num_rows : kRowGroup);
  for (int64_t step = 0; step < k_steps; step += pass_steps) {
    const int64_t steps = k_steps - step < pass_steps ? k_steps - step : pass_steps;
    GemmPass<true>(reinterpret_cast<const char*>(a) + step * kTileBytes, stream_bytes, num_rows,
                   reinterpret_cast<const char*>(panel) + step * kTileBytes, stream_bytes, steps, step > 0, c);
  }
  _tile_release();
}

void GemmAmxSteps(const uint16_t* a, int64_t a_steps, int num_rows, const uint16_t* panel, int64_t steps, bool resume,
                  float* c) {
  GemmPass<false>(reinterpret_cast<const char*>(a), a_steps * kTileBytes, num_rows,
                  reinterpret_cast<const char*>(panel), steps * kTileBytes, steps, resume, c);
}

// Tiles are configured once for all chunks: doing it for each took as long as expanding four tiles.
void GemmQuantizedAmx(const uint16_t* a, int num_rows, const QuantizedPanel& panel, int64_t k_steps, float* c) {
  ConfigureGemm(num_rows < kRowGroup ? num_rows : kRowGroup);
  GemmQuantized<GemmAmxSteps>(a, num_rows, panel, k_steps, c);
  _tile_release();
}
