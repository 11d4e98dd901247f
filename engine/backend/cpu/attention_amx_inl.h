// Streaming attention on AMX tiles over a bfloat16 cache; included after attention_inl.h and gemm_amx_inl.h. Bytes =
// keys and values once per KV head and 16 query rows; flops = 4 * head_dim per (query, key).
//
// The same walk as AttendRows, 16 query rows at a time: queries and softmax weights are rounded to bfloat16, scores,
// maximum, sums and outputs stay in fp32. A decode step of one row runs the same instructions with one row in the tile,
// so it gets the same bits as that row in a prefill. Latents lie as values do; a block of them is transposed into keys
// on the way, about as much work as multiplying 16 rows by it.

constexpr int kTileRows = 16;

// Tiles 0-3: sums; 4: queries; 5: keys; 6: weights of one group; 7: values of one group.
inline void ConfigureAttention(int rows) {
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    config.row_bytes[t] = 64;
    config.rows[t] = static_cast<uint8_t>(rows);
  }
  config.rows[5] = 16;
  config.row_bytes[6] = 2 * kKeyGroup;
  config.rows[7] = kKeyGroup / 2;
  LoadTileConfig(config);
}

// One thread's working memory for 16 query rows, all of it 64-byte aligned.
struct AttentionTile {
  explicit AttentionTile(const AttentionTask& task)
      : dim_pad(task.layout->dim_pad),
        value_pad(static_cast<int>(CeilDiv(task.layout->value_dim, kStepK)) * kStepK),
        scores(static_cast<float*>(task.scratch)),
        sums(scores + kTileRows * kBlockKeys),
        weights(reinterpret_cast<uint16_t*>(sums + kTileRows * dim_pad)),
        queries(weights + kTileRows * kBlockKeys),
        keys(reinterpret_cast<char*>(queries + kTileRows * dim_pad)) {}

  const int dim_pad;
  const int value_pad;      // dimensions that are summed up
  float* const scores;      // [16][kBlockKeys]
  float* const sums;        // [16][dim_pad]
  uint16_t* const weights;  // [16][kBlockKeys]
  uint16_t* const queries;  // [dim_pad / 32][16][32]
  char* const keys;         // of a latent block: [kBlockGroups][dim_pad / 2][16 keys][2]
  float running_max[kTileRows];
  Simd::F running_sum[kTileRows];
};

// One group of latents, [8 key pairs][dim_pad][2], as keys: [dim_pad / 2][16 keys][2]. In each step 16 dimensions of
// all keys: two by two within 64 bits, then an 8 x 8 transposition of those.
inline void TransposeLatents(const char* latents, int dim_pad, char* keys) {
  const __m512i within = _mm512_set4_epi64(0x0f0e0b0a0d0c0908, 0x0706030205040100, 0x0f0e0b0a0d0c0908,
                                           0x0706030205040100);
  for (int d = 0; d < dim_pad; d += kTileCols) {
    __m512i row[8], low[4], high[4];
    for (int i = 0; i < 8; ++i) {
      row[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(latents + (int64_t{i} * dim_pad + d) * 4), within);
    }
    for (int i = 0; i < 4; ++i) {
      low[i] = _mm512_unpacklo_epi64(row[2 * i], row[2 * i + 1]);
      high[i] = _mm512_unpackhi_epi64(row[2 * i], row[2 * i + 1]);
    }
    char* const to = keys + int64_t{d} * 32;
    const auto store = [to](const __m512i* t, int first) {
      const __m512i a = _mm512_shuffle_i64x2(t[0], t[1], 0x44), b = _mm512_shuffle_i64x2(t[2], t[3], 0x44);
      const __m512i c = _mm512_shuffle_i64x2(t[0], t[1], 0xee), e = _mm512_shuffle_i64x2(t[2], t[3], 0xee);
      _mm512_storeu_si512(to + first * 64, _mm512_shuffle_i64x2(a, b, 0x88));
      _mm512_storeu_si512(to + (first + 2) * 64, _mm512_shuffle_i64x2(a, b, 0xdd));
      _mm512_storeu_si512(to + (first + 4) * 64, _mm512_shuffle_i64x2(c, e, 0x88));
      _mm512_storeu_si512(to + (first + 6) * 64, _mm512_shuffle_i64x2(c, e, 0xdd));
    };
    store(low, 0);
    store(high, 1);
  }
}

// Scores of up to four groups; the tiles hold one group each.
inline void ScoreGroups(const AttentionTile& tile, const KeyGroup* groups, int num_groups) {
  constexpr int kStride = kBlockKeys * 4;
  const int steps = tile.dim_pad / kStepK;
  const auto keys = [&](int g, int step) { return groups[g].keys + step * kTileBytes; };
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int step = 0; step < steps; ++step) {
    _tile_loadd(4, tile.queries + step * kTileElements, 64);
    _tile_loadd(5, keys(0, step), 64);
    _tile_dpbf16ps(0, 4, 5);
    if (num_groups > 1) {
      _tile_loadd(5, keys(1, step), 64);
      _tile_dpbf16ps(1, 4, 5);
    }
    if (num_groups > 2) {
      _tile_loadd(5, keys(2, step), 64);
      _tile_dpbf16ps(2, 4, 5);
    }
    if (num_groups > 3) {
      _tile_loadd(5, keys(3, step), 64);
      _tile_dpbf16ps(3, 4, 5);
    }
  }
  _tile_stored(0, tile.scores, kStride);
  _tile_stored(1, tile.scores + kKeyGroup, kStride);
  _tile_stored(2, tile.scores + 2 * kKeyGroup, kStride);
  _tile_stored(3, tile.scores + 3 * kKeyGroup, kStride);
}

// sums += weights x values, 32 dimensions at a time (value_pad is a multiple of 32).
inline void AddValues(const AttentionTile& tile, const KeyGroup* groups, int num_groups) {
  const int64_t stride = int64_t{tile.dim_pad} * 4;
  for (int d = 0; d < tile.value_pad; d += 32) {
    float* const sums = tile.sums + d;
    _tile_loadd(0, sums, stride);
    _tile_loadd(1, sums + 16, stride);
    for (int g = 0; g < num_groups; ++g) {
      const char* const values = groups[g].values + d * 4;
      _tile_loadd(6, tile.weights + g * kKeyGroup, kBlockKeys * 2);
      _tile_loadd(7, values, stride);
      _tile_dpbf16ps(0, 6, 7);
      _tile_loadd(7, values + 64, stride);
      _tile_dpbf16ps(1, 6, 7);
    }
    _tile_stored(0, sums, stride);
    _tile_stored(1, sums + 16, stride);
  }
}

// One row's scores become bfloat16 weights, and its sums are corrected for a new maximum.
inline void WeighRow(AttentionTile* tile, int r) {
  float* const scores = tile->scores + r * kBlockKeys;
  const float correction = UpdateSoftmax(scores, &tile->running_max[r], &tile->running_sum[r]);
  for (int i = 0; i < kBlockKeys; i += 2 * kW) {
    const __m512bh pair = _mm512_cvtne2ps_pbh(Simd::Load(scores + i + kW), Simd::Load(scores + i));
    _mm512_store_si512(tile->weights + r * kBlockKeys + i, (__m512i)pair);
  }
  if (correction == 1.0f) return;  // multiplying would change nothing
  float* const sums = tile->sums + r * tile->dim_pad;
  const Simd::F factor = Simd::Set(correction);
  for (int d = 0; d < tile->value_pad; d += kW) Simd::Store(sums + d, Simd::Mul(Simd::Load(sums + d), factor));
}

// Keys and values of the next block, while this one is computed; few query rows leave the time waiting for memory.
inline void FetchGroup(const KvLayout& layout, const KeyGroup& group) {
  for (int64_t i = 0; i < layout.group_stride; i += 64) _mm_prefetch(group.keys + i, _MM_HINT_T0);
}

inline void AttendTile(const AttentionTask& task, int first_row, int rows) {
  const KvLayout& layout = *task.layout;
  AttentionTile tile(task);
  const int first_token = first_row / task.heads_per_kv;
  const int last_token = (first_row + rows - 1) / task.heads_per_kv;
  for (int r = 0; r < rows; ++r) {
    const int token = (first_row + r) / task.heads_per_kv;
    const float* q = task.q + token * task.q_stride + (first_row + r) % task.heads_per_kv * layout.head_dim;
    PackRowBf16(q, layout.head_dim, 0, tile.dim_pad / kStepK, tile.queries + r * kStepK);
    StartSoftmax(task, first_row + r, &tile.running_max[r], &tile.running_sum[r]);
    for (int d = 0; d < tile.value_pad; d += kW) Simd::Store(tile.sums + r * tile.dim_pad + d, Simd::Set(0.0f));
  }
  const int32_t last_group = LastVisible(task, task.first_position + last_token) / kKeyGroup;
  const int32_t first_block = FirstVisible(task, task.first_position + first_token) / kBlockKeys;
  const bool few_rows = task.num_tokens * task.heads_per_kv <= kTileRows;
  for (int32_t first_group = first_block * kBlockGroups; first_group <= last_group; first_group += kBlockGroups) {
    KeyGroup groups[kBlockGroups];
    int num_groups = 0;
    for (; num_groups < kBlockGroups && first_group + num_groups <= last_group; ++num_groups) {
      groups[num_groups] = FindGroup(task, first_group + num_groups);
      const int32_t ahead = first_group + num_groups + kBlockGroups;
      if (few_rows && ahead <= last_group) FetchGroup(layout, FindGroup(task, ahead));
      if (!layout.is_latent) continue;
      char* const keys = tile.keys + num_groups * (int64_t{tile.dim_pad} * kKeyGroup * 2);
      TransposeLatents(groups[num_groups].values, tile.dim_pad, keys);
      groups[num_groups].keys = keys;
    }
    __asm__ volatile("" : : : "memory");  // tile loads read what vector code wrote, which GCC's intrinsics do not say
    ScoreGroups(tile, groups, num_groups);
    for (int r = 0; r < rows; ++r) {
      float* const scores = tile.scores + r * kBlockKeys;
      const int32_t position = task.first_position + (first_row + r) / task.heads_per_kv;
      for (int g = 0; g < num_groups; ++g) {
        ScaleAndMask(task, groups[g], first_row + r, position, scores + g * kKeyGroup);
      }
      for (int i = num_groups * kKeyGroup; i < kBlockKeys; i += kW) {
        Simd::Store(scores + i, Simd::Set(-__builtin_inff()));
      }
      WeighRow(&tile, r);
    }
    __asm__ volatile("" : : : "memory");
    AddValues(tile, groups, num_groups);
  }
  for (int r = 0; r < rows; ++r) {
    const int row = first_row + r;
    float* out = task.out + row / task.heads_per_kv * task.out_stride + row % task.heads_per_kv * layout.value_dim;
    const Simd::F total = Simd::Set(Simd::Sum(tile.running_sum[r]));
    for (int d = 0; d < layout.value_dim; d += kW) {
      Simd::StoreN(out + d, Simd::Div(Simd::Load(tile.sums + r * tile.dim_pad + d), total), layout.value_dim - d);
    }
  }
}

void AttendAmx(const AttentionTask& task) {
  if (task.layout->dtype != DType::kBF16) return Attend(task);
  const int rows = task.num_tokens * task.heads_per_kv;
  for (int row = 0; row < rows; row += kTileRows) {
    const int here = rows - row < kTileRows ? rows - row : kTileRows;
    ConfigureAttention(here);
    AttendTile(task, row, here);
  }
  _tile_release();
}
